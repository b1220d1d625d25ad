"""Runs Python inside a PEX: with a cache that goes afterwards, and without network."""

from __future__ import annotations

from pathlib import Path

from bundler.artifacts.running import Runner, isolated
from bundler.listener import Listener


def runner(pex: Path, interpreter: Path, root: Path, listener: Listener) -> Runner:
    """What runs a program inside this PEX.

    root: the PEX_ROOT, which must be no build's: what a run writes there, a build would take for
    the wheel's. Several PEX files that share it unpack what they have in common once. The folder
    that it runs in is empty: nothing of a checkout is imported in place of what was packed.
    """
    start = pex / "__main__.py" if pex.is_dir() else pex
    own = {"PEX_ROOT": str(root), "PEX_INTERPRETER": "1"}
    return isolated([str(interpreter), str(start.absolute())], own, listener)
