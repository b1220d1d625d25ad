"""Runs Python inside a PEX: with a cache that goes afterwards, and without network."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundler.artifacts.running import (
    TIMEOUT_SECONDS,
    Runner,
    bare_environment,
    without_network,
)
from bundler.listener import Listener
from bundler.system import process
from bundler.system.process import Completed


def runner(pex: Path, interpreter: Path, root: Path, listener: Listener) -> Runner:
    """What runs a program inside this PEX.

    root: the PEX_ROOT, which must be no build's: what a run writes there, a build would take for
    the wheel's. Several PEX files that share it unpack what they have in common once. The folder
    that it runs in is empty: nothing of a checkout is imported in place of what was packed.
    """
    start = pex / "__main__.py" if pex.is_dir() else pex
    own = {"PEX_ROOT": str(root), "PEX_INTERPRETER": "1"}
    return isolated([str(interpreter), str(start.absolute())], own, listener)


def isolated(argv: Sequence[str], own: Mapping[str, str], listener: Listener) -> Runner:
    """Runs a program by `argv`, in an empty folder. own: variables besides the program's."""
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
