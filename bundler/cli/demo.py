"""``state-bundler demo``: plays a user on the sample project, command by command."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.console import Console

if TYPE_CHECKING:
    from bundler.setup.demo.vendor import VendorApi

_KEY = "VendorCatalog[products]"
_STATE_DIRECTORY = "src/shop/defs/.local_defs_state"
_PEX = "build/shop.pex"
_IMAGE = "build/state-image"
_TAG = "state-bundler-demo:1"
# --venv: Dagster in a PEX needs it. --no-compress: larger, and made in half the time.
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
    """Show the whole of it on a sample project, in FOLDER (./state-bundler-demo by default).

    Writes a Dagster project with four state-backed components, makes its environment, starts an
    API on loopback for it, and runs guard, refresh, build and verify. It needs no account and no
    engine; where a Docker engine is reachable it makes an image as well. Run again, it begins anew.
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
    play.say("The artifacts are as they were, and what is in them can be read by anybody:")
    play.run("status", _PEX, f"oci:{_IMAGE}")
    _image(play, folder)
    console.line()
    console.line(console.styled(f"Done in {time.monotonic() - started:.0f} s.", "bold"))
    _what_next(console, folder)


def _set_up(console: Console, folder: Path) -> None:
    from bundler.git.committing import commit_all
    from bundler.setup.demo.environment import install
    from bundler.setup.demo.project import prepare_folder

    console.line(console.styled(f"The sample project, in {folder}", "bold"))
    prepare_folder(folder)
    console.line("  Its environment, .venv, with Dagster and dbt …")
    if not install(folder):
        console.line("  (it is there from the last time)")
    commit_all(folder, "The shop, as the demo wrote it")


def _serve(console: Console, folder: Path, api: VendorApi) -> None:
    from bundler.setup.demo.project import write_dotenv

    write_dotenv(folder, api.environment)
    console.line(f"  A vendor's API on {api.url}; its address and token are in .env")


class _Play:
    """Runs our own commands as a user would, in the project."""

    def __init__(self, console: Console, folder: Path) -> None:
        from bundler.setup.demo.environment import environment_of

        self._console = console
        self._folder = folder
        self._environment = environment_of(os.environ)

    def say(self, text: str) -> None:
        self._console.line()
        self._console.line(self._console.styled(text, "bold"))

    def run(self, *arguments: str, expected: int = 0) -> None:
        """Shows a command, runs it. Raises `ChildFailed` where it ends otherwise than it should."""
        from bundler.errors import Bug, ChildFailed
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
                raise Bug(f"{name} ended well, though it should have ended with {expected}.")
            raise ChildFailed(name, code)

    def fingerprint(self) -> str:
        """A digest of every byte of the published states."""
        import hashlib

        digest = hashlib.sha256()
        for path in sorted((self._folder / _STATE_DIRECTORY).glob("[!@.]*/**/*")):
            if path.is_file():
                digest.update(f"{path}\0".encode() + path.read_bytes())
        return digest.hexdigest()


def _build(play: _Play) -> None:
    play.say("Is the state kept out of git?")
    play.run("guard")
    play.say("Ask the external systems, each key in a process of its own, all or nothing:")
    play.run("refresh")
    play.say("Build a PEX with the real pex and its own arguments, with the state inside:")
    play.run("build", "pex", "--refresh", "missing", "-o", _PEX, "--", *_PEX_ARGUMENTS)
    play.say("Make an OCI image of the state, without any engine:")
    play.run("build", "oci", "--refresh", "missing", "-o", _IMAGE)
    play.say("Check every byte of both against the manifest inside:")
    play.run("verify", _PEX, f"oci:{_IMAGE}")


def _image(play: _Play, folder: Path) -> None:
    """Makes the Docker image, where an engine is reachable; the API is still down."""
    from bundler.setup.demo.engine import DOCKERFILE, base_image, write_dockerfile

    base = base_image(os.environ)
    if base is None:
        return
    write_dockerfile(folder)
    play.say("A Docker engine is reachable: an image of the same state, loaded without network:")
    build = ("build", "docker", "--refresh", "missing", "--load-check")
    play.run(*build, "-t", _TAG, "-f", DOCKERFILE, "--build-arg", f"PYTHON={base}", ".")


def _outage(play: _Play, api: VendorApi) -> None:
    from bundler.errors import Bug

    before = play.fingerprint()
    api.stop()
    play.say("Now the vendor's API is down. A refresh must fail, and lose nothing:")
    play.run("refresh", "--key", _KEY, expected=_UNAVAILABLE)
    if play.fingerprint() != before:
        raise Bug("The failed refresh changed the last good state.")
    play.say("The last good state is bit for bit what it was:")
    play.run("verify", _STATE_DIRECTORY)


def _what_next(console: Console, folder: Path) -> None:
    here = os.path.relpath(folder)
    command = _own_name()
    console.line(f"Next: {_shown(['cd', here])}, then try")
    for arguments in (
        ("verify", _PEX, f"oci:{_IMAGE}"),
        ("status", "--format", "json", _PEX),
        ("doctor",),
    ):
        console.line(f"  {_shown([command, *arguments])}")


def _own_name() -> str:
    """How this very program can be called from another folder."""
    import shutil

    called = Path(sys.argv[0])
    if called.name != "state-bundler":
        return f"{sys.executable} -m bundler"
    return "state-bundler" if shutil.which("state-bundler") else str(called.absolute())


def _shown(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) if " " not in word else word for word in words)
