"""The sample project and the vendor's API, for the end-to-end tests.

`make` writes the project of ``templates/shop`` into a folder and gives it an environment: a
``.venv`` whose interpreter sees the packages of ``tests/requirements/dagster.txt`` and the
project's own sources by ``.pth`` files, as an editable install would; made in a tenth of a second.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bundler.setup.demo.project import write_sample
from tests.support import forked
from tests.support.environments import python_of

# What a test run must not inherit from the machine it runs on.
_FOREIGN = ("GIT_", "DAGSTER_", "DG_", "SHOP_", "STATE_BUNDLER_", "VIRTUAL_ENV", "PYTHON", "UV_")


@dataclass(frozen=True)
class Sample:
    """A sample project on disk. environment: in addition to the machine's own."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return self.root / ".venv" / "bin" / "python"

    @property
    def state_directory(self) -> Path:
        return self.root / "src" / "shop" / "defs" / ".local_defs_state"

    @property
    def env(self) -> dict[str, str]:
        """A whole environment for a program that works on this project."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        return {
            **kept,
            "DAGSTER_DISABLE_TELEMETRY": "true",
            "HOME": str(self.root.parent / "home"),
            **self.environment,
        }

    def run(
        self, *argv: str | Path, env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program in the project; its interpreter's folder comes first on PATH."""
        whole = {**self.env, **(env or {})}
        whole["PATH"] = f"{self.python.parent}{os.pathsep}{whole['PATH']}"
        done = forked.text(forked.run(argv, cwd=self.root, env=whole, timeout=300))
        if check:
            done.check_returncode()
        return done

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        return self.run("git", *identity, *arguments).stdout


def make(root: Path, environment: Mapping[str, str] | None = None) -> Sample:
    """Writes the sample project into `root` (made if need be) and gives it its environment."""
    sample = Sample(root, dict(environment or {}))
    write_sample(root)
    make_environment(root, root / "src")
    return sample


def make_repository(root: Path, environment: Mapping[str, str] | None = None) -> Sample:
    """Like `make`, in a git repository with one commit that holds the project."""
    sample = make(root, environment)
    sample.git("init", "--quiet", "--initial-branch=main")
    sample.git("add", "--all")
    sample.git("commit", "--quiet", "--message=The shop")
    return sample


def make_environment(root: Path, *sources: Path) -> Path:
    """Makes a ``.venv`` with Dagster and dbt in `root`, which imports from these folders, too.

    Returns its interpreter.
    """
    shared = python_of("dagster")
    home = root / ".venv"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(home)
    site = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(home)}))
    packages = sysconfig.get_path("purelib", "posix_prefix", {"base": str(shared.parent.parent)})
    site.joinpath("_packages.pth").write_text(f"{packages}\n")
    site.joinpath("_editable.pth").write_text("".join(f"{source}\n" for source in sources))
    for script in shared.parent.iterdir():
        _adopt(script, shared, home / "bin" / script.name)
    return home / "bin" / "python"


def base_of(python: str) -> tuple[str, list[str]] | None:
    """The interpreter whose packages a sample's uses, and what that imports from before them."""
    home = Path(python).parent.parent
    site = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(home)}))
    try:
        packages = Path(site.joinpath("_packages.pth").read_text().rstrip("\n"))
        sources = site.joinpath("_editable.pth").read_text().splitlines()
    except OSError:
        return None
    return str(packages.parents[2] / "bin" / "python"), [str(site), *sources]


def _adopt(script: Path, shared: Path, target: Path) -> None:
    """Copies a console script such as dbt or dg, so that it starts the project's interpreter."""
    if script.is_symlink() or target.exists():
        return
    content = script.read_bytes()
    if content.startswith(b"#!"):
        content = content.replace(bytes(shared), bytes(target.parent / "python"))
        target.write_bytes(_startable(content))
        target.chmod(0o755)


def _startable(script: bytes) -> bytes:
    """With sh as the starter where the interpreter's path has a space, as installers do it."""
    first, _, rest = script.partition(b"\n")
    if b" " not in first:
        return script
    return b"#!/bin/sh\n'''exec' \"%s\" \"$0\" \"$@\"\n' '''\n%s" % (first[2:], rest)
