"""Runs Python with a wheel instead of the project; its dependencies are the project's own."""

from __future__ import annotations

import zipfile
from pathlib import Path

from bundler.artifacts.running import Runner, isolated
from bundler.listener import Listener


def runner(wheel: Path, interpreter: Path, folder: Path, listener: Listener) -> Runner:
    """Runs programs that import from this wheel, which has been verified.

    folder: the wheel is unpacked there. It precedes everything that the interpreter has installed,
    including an editable installation of the project.
    """
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return isolated([str(interpreter)], {"PYTHONPATH": str(folder)}, listener)
