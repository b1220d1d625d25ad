"""What pex or a build backend would wait for: a FIFO among the files that it packs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bundler.errors import InputOutputError
from bundler.git.words import printable, quoted
from bundler.system.atomic import io_errors


def refuse_fifos(folder: Path, reader: str) -> None:
    """Raises `InputOutputError` for a FIFO below a folder, outside of virtual environments.

    reader: the program that would open it and wait until somebody writes to it.
    """
    pending = [os.fspath(folder)]
    while pending:
        here = pending.pop()
        if os.path.exists(os.path.join(here, "pyvenv.cfg")):
            continue
        with io_errors(Path(here)), os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != ".git":
                        pending.append(entry.path)
                elif not entry.is_file() and _is_fifo(entry.path):
                    raise InputOutputError(
                        f"{printable(os.fsencode(entry.path))} is a FIFO: {reader} would read it "
                        "and block forever.",
                        hint=f"Move it away: mv {quoted(entry.path)} "
                        f"{quoted(f'{os.path.abspath(folder)}.fifo')}",
                    )


def _is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:  # a link that leads nowhere
        return False
