"""The private folder of a run: reports and logs of attempts, until the run ends.

A killed run cannot put its folder away, and what components print may hold more than one wants to
leave lying around. So each folder has a lock that is held as long as its run, and every run removes
the folders of its user whose lock nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "state-bundler-refresh-"
_LOCK = "lock"
# A folder without a lock file is one that another run is making right now, unless it is this old.
_MAKING_SECONDS = 60.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder that nobody else can read, and that is gone at the end."""
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with open(folder / _LOCK, "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    with suppress(OSError):
        for child in os.scandir(parent):
            if child.name.startswith(_PREFIX) and child.is_dir(follow_symlinks=False):
                _remove_if_left(Path(child.path))


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError):
        status = folder.lstat()
        if status.st_uid != os.geteuid():
            return
        try:
            with open(folder / _LOCK, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its run goes on
        except FileNotFoundError:
            if time.time() - status.st_mtime < _MAKING_SECONDS:
                return
        shutil.rmtree(folder, ignore_errors=True)
