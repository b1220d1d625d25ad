"""Runs Python with a PEX or a wheel instead of the project, without network."""

from __future__ import annotations

import zipfile
from pathlib import Path

from bundler.artifacts.running import Runner, isolated
from bundler.listener import Listener


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
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return isolated([str(interpreter)], {"PYTHONPATH": str(folder)}, listener)
