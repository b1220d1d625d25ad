"""``state-bundler demo``: runs the commands a user would run, on the sample project."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.console import Console
from bundler.errors import Bug, ChildFailed, ToolFailed
from bundler.git.committing import commit_all

if TYPE_CHECKING:
    from bundler.setup.demo.vendor import VendorApi

_KEY = "VendorCatalog[products]"
_STATE_DIRECTORY = "src/shop/defs/.local_defs_state"
_PEX = "build/shop.pex"
_IMAGE = "build/state-image"
_PAGE = "build/state.html"
_TAG = "state-bundler-demo:1"
# --venv: required by Dagster in a PEX. --no-compress: larger, but built in half the time.
_PEX_ARGUMENTS = (
    *("--venv-repository", ".venv", "-D", "src", "-D", "pex", "--venv", "--no-compress"),
    *("dagster", "dagster-dbt", "dbt-duckdb", "requests"),
)
_UNAVAILABLE = 69


@click.command()
@click.argument(
    "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("state-bundler-demo")
)
def demo(folder: Path) -> None:
    """Run every step on a sample project in FOLDER (default: ./state-bundler-demo).

    Creates a Dagster project with four state-backed components and its environment, serves a mock
    vendor API on localhost, and runs guard, refresh, build and verify. Needs no account and no
    engine; also builds an image if a Docker engine is reachable. Can be run again.
    """
    from bundler.setup.demo.vendor import VendorApi

    started = time.monotonic()
    console = Console(sys.stderr)
    folder = folder.resolve()
    _set_up(console, folder)
    with VendorApi() as api:
        _serve(console, folder, api)
        play = _Play(console, folder)
        _build(play)
        _outage(play, api)
    play.say("The artifacts are unchanged, and anyone can read what is in them:")
    play.run("status", _PEX, f"oci:{_IMAGE}")
    image = _image(play, folder)
    play.say("The same as an HTML page:")
    play.run("status", "--html", _PAGE, _PEX, f"oci:{_IMAGE}", *image)
    console.line()
    console.line(console.styled(f"Done in {time.monotonic() - started:.0f} s.", "bold"))
    _what_next(console, folder)


def _set_up(console: Console, folder: Path) -> None:
    from bundler.setup.demo.project import install, prepare_folder

    console.line(console.styled(f"The sample project in {folder}", "bold"))
    prepare_folder(folder)
    console.line("  Creating its environment (.venv) with Dagster and dbt …")
    if not install(folder):
        console.line("  (reusing the existing one)")
    commit_all(folder, "Create the sample shop")


def _serve(console: Console, folder: Path, api: VendorApi) -> None:
    from bundler.setup.demo.project import write_dotenv

    write_dotenv(folder, api.environment)
    console.line(f"  A mock vendor API runs at {api.url}; .env has its address and token")


class _Play:
    """Runs our commands in the project, as a user would."""

    def __init__(self, console: Console, folder: Path) -> None:
        from bundler.setup.demo.project import environment_of

        self._console = console
        self._folder = folder
        self._environment = environment_of(os.environ)

    def say(self, text: str) -> None:
        self._console.line()
        self._console.line(self._console.styled(text, "bold"))

    def run(self, *arguments: str, expected: int = 0) -> None:
        """Shows and runs a command. Raises `ChildFailed` on an unexpected exit code."""
        from bundler.system.process import pass_through

        prompt = self._console.styled("$", "dim")
        self._console.line(f"{prompt} {_shown(['state-bundler', *arguments])}")
        sys.stdout.flush()
        command = [sys.executable, "-m", "bundler", *arguments]
        code = pass_through(command, cwd=self._folder, env=self._environment)
        if expected:
            self._console.line(f"(exit code {code})")
        if code != expected:
            name = f"state-bundler {arguments[0]}"
            if code == 0:
                raise Bug(f"{name} succeeded, but exit code {expected} was expected.")
            raise ChildFailed(name, code)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in sorted((self._folder / _STATE_DIRECTORY).glob("[!@.]*/**/*")):
            if path.is_file():
                digest.update(f"{path}\0".encode() + path.read_bytes())
        return digest.hexdigest()


def _build(play: _Play) -> None:
    play.say("Check that git ignores the state:")
    play.run("guard")
    play.say("Refresh each key in its own process, all or nothing:")
    play.run("refresh")
    play.say("Build a PEX with pex and its own arguments, with the state inside:")
    play.run("build", "pex", "--refresh", "missing", "-o", _PEX, "--", *_PEX_ARGUMENTS)
    play.say("Build an OCI image of the state, without an engine:")
    play.run("build", "oci", "--refresh", "missing", "-o", _IMAGE)
    play.say("Verify every byte of both against the embedded manifest:")
    play.run("verify", _PEX, f"oci:{_IMAGE}")


def _image(play: _Play, folder: Path) -> tuple[str, ...]:
    """Builds the Docker image if one can be built here, and returns its name.

    The API is still down.
    """
    from bundler.setup.demo.project import DOCKERFILE, base_image, write_dockerfile

    try:
        base = base_image(os.environ)
    except ToolFailed as error:
        play.say(f"No Docker image is built: {error.what} {error.hint}".rstrip())
        return ()
    write_dockerfile(folder)
    play.say("Build an image of the same state with Docker and load it without network:")
    build = ("build", "docker", "--refresh", "missing", "--load-check")
    play.run(*build, "-t", _TAG, "-f", DOCKERFILE, "--build-arg", f"PYTHON={base}", ".")
    return (f"docker-daemon:{_TAG}",)


def _outage(play: _Play, api: VendorApi) -> None:
    before = play.fingerprint()
    api.stop()
    play.say("Now the vendor's API is down. A refresh must fail and change nothing:")
    play.run("refresh", "--key", _KEY, expected=_UNAVAILABLE)
    if play.fingerprint() != before:
        raise Bug("The failed refresh changed the last good state.")
    play.say("The last good state is unchanged:")
    play.run("verify", _STATE_DIRECTORY)


def _what_next(console: Console, folder: Path) -> None:
    here = os.path.relpath(folder)
    command = _own_name()
    console.line(f"Next: open {folder / _PAGE} in a browser.")
    console.line(f"Then {_shown(['cd', here])}, and try:")
    for arguments in (
        ("verify", _PEX, f"oci:{_IMAGE}"),
        ("status", "--format", "json", _PEX),
        ("doctor",),
    ):
        console.line(f"  {_shown([command, *arguments])}")


def _own_name() -> str:
    """How to call this program from another folder."""
    called = Path(sys.argv[0])
    if called.name != "state-bundler":
        return f"{sys.executable} -m bundler"
    return "state-bundler" if shutil.which("state-bundler") else str(called.absolute())


def _shown(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) if " " not in word else word for word in words)
