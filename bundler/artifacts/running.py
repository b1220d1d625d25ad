"""Runs Python inside an artifact, without network; `image.engine.running` does it in an image."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from bundler.errors import ToolFailed
from bundler.listener import Listener
from bundler.system import process
from bundler.system.process import Completed

TIMEOUT_SECONDS = 300.0
# Exit codes of docker and of shells for a program that did not start.
NOT_STARTED = (125, 126, 127)
# Runs a Python program, given on stdin, inside an artifact: (arguments, program, environment).
Runner = Callable[[Sequence[str], bytes, Mapping[str, str]], Completed]


def bare_environment(home: str, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program on this machine that must not depend on this machine's
    settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH") or name.startswith("LC_")
    }
    return {**kept, "HOME": home, "DAGSTER_DISABLE_TELEMETRY": "true", **given}


@cache
def without_network() -> tuple[str, ...]:
    """The command that starts a program without network; empty if this machine forbids that."""
    for command in (("unshare", "--net"), ("unshare", "--map-root-user", "--net")):
        try:
            if process.run([*command, "true"], timeout=10).exit_code == 0:
                return command
        except ToolFailed:
            return ()
    return ()


def isolated(argv: Sequence[str], own: Mapping[str, str], listener: Listener) -> Runner:
    """Runs a program by `argv`, in an empty folder. own: additional variables."""
    isolation = without_network()
    if not isolation:
        listener.warning(
            "The load check could not be isolated from the network (unshare is missing or not "
            "permitted): what it loads may still need the network."
        )

    def run(arguments: Sequence[str], program: bytes, environment: Mapping[str, str]) -> Completed:
        with tempfile.TemporaryDirectory(prefix="state-bundler-") as folder:
            empty = Path(folder) / "empty"
            empty.mkdir()
            return process.run(
                [*isolation, *argv, *arguments],
                cwd=empty,
                env={**bare_environment(folder, environment), **own},
                stdin=program,
                timeout=TIMEOUT_SECONDS,
            )

    return run


def in_pex(pex: Path, interpreter: Path, root: Path, listener: Listener) -> Runner:
    """Runs programs inside this PEX.

    root: the PEX_ROOT, which no build may use: a build would take what a run writes there for the
    wheel's. Several PEX files that share it unpack their common parts once. The working directory
    is empty: nothing from a checkout is imported instead of what was packed.
    """
    start = pex / "__main__.py" if pex.is_dir() else pex
    own = {"PEX_ROOT": str(root), "PEX_INTERPRETER": "1"}
    return isolated([str(interpreter), str(start.absolute())], own, listener)


def with_wheel(wheel: Path, interpreter: Path, folder: Path, listener: Listener) -> Runner:
    """Runs programs that import from this wheel, which has been verified, and its dependencies from
    the project.

    folder: the wheel is unpacked there. It precedes everything that the interpreter has installed,
    including an editable installation of the project.
    """
    import zipfile

    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return isolated([str(interpreter)], {"PYTHONPATH": str(folder)}, listener)
