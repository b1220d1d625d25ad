"""The private folder of a run: reports and logs of attempts, until the run ends.

A killed run cannot remove its folder, and what components print may be confidential. So each folder
has a lock that is held during its run, and every run removes the folders of its user that a refresh
made, according to their lock file, and that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bundler.system.atomic import io_errors

_PREFIX = "state-bundler-refresh-"
_NAME = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")  # as tempfile makes it
_LOCK = "lock"
_MARK = b"the scratch folder of a refresh by state-bundler\n"
# A folder without a lock file is being created by another run, unless it is this old.
_MAKING_SECONDS = 60.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder that nobody else can read; removed at the end."""
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with ExitStack() as stack:
            with io_errors(folder):
                lock = stack.enter_context(open(folder / _LOCK, "wb", buffering=0))
                fcntl.flock(lock, fcntl.LOCK_EX)
                lock.write(_MARK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    with suppress(OSError), os.scandir(parent) as children:
        for child in children:
            if _NAME.fullmatch(child.name) and child.is_dir(follow_symlinks=False):
                _remove_if_left(Path(child.path))


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError):
        status = folder.lstat()
        if (status.st_uid, stat.S_IMODE(status.st_mode)) != (os.geteuid(), 0o700):
            return
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with open(os.open(folder / _LOCK, flags), "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its run goes on
                if lock.read(len(_MARK)) == _MARK:
                    shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            if time.time() - status.st_mtime > _MAKING_SECONDS:
                folder.rmdir()  # fails unless the folder is empty
