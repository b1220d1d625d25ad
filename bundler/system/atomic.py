"""What makes a change on disk durable and atomic: fsync, rename, exchange."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler.errors import io_failure

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # Linux, linux/fs.h
_RENAME_SWAP = 2  # macOS, sys/stdio.h
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def io_errors(path: Path) -> Iterator[None]:
    """Turns an `OSError` into an `InputOutputError` that names the file."""
    try:
        yield
    except OSError as error:
        raise io_failure(error, path) from error


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file beside, fsyncs it and renames it into place: it is old or new, never half."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(beside, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_tree(root: Path) -> None:
    """Brings every file and directory below to the disk, the root included.

    A symbolic link is a name in its directory and nothing else.
    """
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                _sync(path)
        sync_directory(Path(directory))


def sync_directory(path: Path) -> None:
    """Brings the names in a directory to the disk."""
    _sync(path)


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(new: Path, live: Path) -> None:
    """Puts `new` in the place of `live`, and what was there in the place of `new`, atomically.

    Where the platform or the file system has no exchange, there is a moment without `live`; the
    caller's journal covers it. Raises `OSError`.
    """
    if not os.path.lexists(live):
        os.replace(new, live)
    elif not _exchange(os.fsencode(new), os.fsencode(live)):
        aside = new.with_name(f"@replaced-{new.name}")
        os.replace(live, aside)
        os.replace(new, live)
    sync_directory(live.parent)


def _exchange(new: bytes, live: bytes) -> bool:
    """False where the platform does not offer it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        result = libc.renamex_np(new, live, _RENAME_SWAP)
    elif hasattr(libc, "renameat2"):
        result = libc.renameat2(_AT_FDCWD, new, _AT_FDCWD, live, _RENAME_EXCHANGE)
    else:
        return False
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_OFFERED:
        return False
    raise OSError(code, os.strerror(code), os.fsdecode(live))
