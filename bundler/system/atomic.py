"""Durable and atomic changes on disk: fsync, rename, exchange."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from bundler.errors import BundlerError, io_failure
from bundler.system.walking import walk

_AT_FDCWD = -2 if sys.platform == "darwin" else -100
_RENAME_EXCHANGE = 2  # Linux, linux/fs.h
_RENAME_SWAP = 2  # macOS, sys/stdio.h
_BUFFER_BYTES = 1024 * 1024
# Where an exchange that is not atomic puts the old entry.
_REPLACED = "@replaced-"
_MARK = ".state-bundler-"
_TEMPORARY = re.compile(r"\..+\.state-bundler-[a-z0-9_]{8}")
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def io_errors(path: Path) -> Iterator[None]:
    """Turns an `OSError` into an `InputOutputError` that names the file."""
    try:
        yield
    except OSError as error:
        raise io_failure(error, path) from error


def write_synced(path: Path, data: bytes, mode: int | None = None) -> None:
    """Writes a file atomically; it is on disk when this returns.

    A link is replaced, not followed. mode: of a new file. Raises `OSError`.
    """
    with _replaced(path, mode) as stream:
        stream.write(data)


def save(path: Path, data: bytes, mode: int | None = None) -> None:
    """Like `write_synced`, for a path that the user gave; see `replaced_file`."""
    with replaced_file(path, mode) as stream:
        stream.write(data)


@contextmanager
def replaced_file(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file's at the end of the block; it can be read back.

    The file keeps its mode and its owner, and a link stays a link. A device or a pipe is written to
    directly. mode: of a new file. Raises `OSError`, and leaves the file unchanged.
    """
    if path.exists() and not path.is_file():
        with open(path, "wb") as device:
            yield device
        return
    with _replaced(path.resolve(), mode) as stream:
        yield stream


@contextmanager
def _replaced(path: Path, mode: int | None) -> Iterator[BinaryIO]:
    with temporary_file(path) as (stream, temporary):
        yield stream
        give_name(stream, temporary, path, mode)
    sync_directory(path.parent)


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file next to a path: its stream and its name; removed at the end."""
    with (
        _temporary(path, _new_file) as (temporary, descriptor),
        open(descriptor, "w+b", buffering=_BUFFER_BYTES, closefd=False) as stream,
    ):
        yield stream, temporary


def give_name(stream: BinaryIO, temporary: Path, path: Path, mode: int | None = None) -> None:
    """Syncs a temporary file and renames it; the name is not synced yet."""
    stream.flush()
    _take_after(path, stream.fileno(), mode)
    os.fsync(stream.fileno())
    os.replace(temporary, path)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """An empty folder next to a path, whose contents will get that name; removed at the end."""
    with _temporary(path, _new_folder) as (temporary, _):
        try:
            yield temporary
        except BundlerError as error:
            error.rename(f"{temporary}/", f"{path.parent}/")
            raise


def make_directories(path: Path) -> None:
    """Creates a directory and its parents; they are on disk when this returns. Raises `OSError`."""
    missing = [path, *path.parents]
    missing = missing[: next((n for n, each in enumerate(missing) if each.is_dir()), 0)]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


# --- files and folders that are not whole yet -------------------------------------------------
#
# Each has its own name next to the one that it will have, and is locked by the process that
# writes it. A process that is killed leaves it behind without a lock: the next one that writes
# to the same name removes it.


def remove_leftovers(directory: Path, name: str = "") -> None:
    """Removes temporary files for this name, or for any name, that nobody writes any more."""
    begins = f".{name}{_MARK}" if name else "."
    with suppress(OSError):
        for child in os.listdir(directory):
            if child.startswith(begins) and _TEMPORARY.fullmatch(child):
                _remove_leftover(directory / child)


def _remove_leftover(path: Path) -> None:
    with suppress(OSError):
        status = path.lstat()
        if status.st_uid != os.geteuid():
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for replaced in path.glob(f"{_REPLACED}*"):
                live = path.with_name(replaced.name.removeprefix(_REPLACED))
                if not os.path.lexists(live):
                    os.replace(replaced, live)
            _remove(path)
        finally:
            os.close(descriptor)


@contextmanager
def _temporary(path: Path, make: Callable[[Path], tuple[Path, int]]) -> Iterator[tuple[Path, int]]:
    remove_leftovers(path.parent, path.name)
    while True:
        with io_errors(path):
            temporary, descriptor = make(path)
        # Some network file systems have no such locks; nothing is ever removed there.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_still(temporary, descriptor):
            break
        os.close(descriptor)  # another process has removed it as a leftover
    try:
        yield temporary, descriptor
    finally:
        with suppress(OSError):
            _remove(temporary)
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _new_file(path: Path) -> tuple[Path, int]:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}{_MARK}", dir=path.parent)
    return Path(name), descriptor


def _new_folder(path: Path) -> tuple[Path, int]:
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}{_MARK}", dir=path.parent))
    return made, os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _take_after(path: Path, descriptor: int, mode: int | None) -> None:
    """Gives a new file the owner and the mode of the one that it will replace."""
    if not path.is_file() or path.is_symlink():
        os.fchmod(descriptor, 0o666 & ~_umask() if mode is None else mode)
        return
    before = path.stat()
    keep_owner(descriptor, before)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode) | stat.S_IRUSR)


def keep_owner(made: int | Path, before: os.stat_result) -> None:
    """When run as root, gives a file the owner of the one that it replaces."""
    if os.geteuid() == 0:
        os.chown(made, before.st_uid, before.st_gid, follow_symlinks=isinstance(made, int))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync_tree(root: Path) -> None:
    """Syncs a file, or everything below a directory, including the directory.

    A symbolic link is only a name in its directory.
    """
    if not root.is_dir():
        _sync(root)
    for directory, _, names in walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                _sync(path)
        sync_directory(Path(directory))


def restrict_modes(root: Path) -> None:
    """Makes a tree writable for its owner only and readable for its owner, whatever created it."""
    _restrict(str(root), stat.S_IRWXU)
    for directory, folders, names in walk(root):
        for name in folders:
            _restrict(os.path.join(directory, name), stat.S_IRWXU)
        for name in names:
            _restrict(os.path.join(directory, name), stat.S_IRUSR)


def _restrict(path: str, needed: int) -> None:
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    others = 0o022 if mode & stat.S_IWOTH else 0
    wanted = mode & ~others | needed
    if wanted != mode and not os.path.islink(path):
        os.chmod(path, wanted)


def sync_directory(path: Path) -> None:
    """Syncs the names in a directory, which the user may have named by a link."""
    _sync(path, os.O_DIRECTORY)


def _sync(path: str | Path, kind: int = os.O_NOFOLLOW) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | kind)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(new: Path, live: Path) -> None:
    """Exchanges `new` and `live` atomically.

    If the platform or the file system has no exchange, `live` is missing for a moment: the caller's
    journal covers that, or the temporary folder that contains `new`. Raises `OSError`.
    """
    if not os.path.lexists(live):
        os.replace(new, live)
    elif not _exchange(os.fsencode(new), os.fsencode(live)):
        aside = new.with_name(f"{_REPLACED}{live.name}")
        os.replace(live, aside)
        os.replace(new, live)
    sync_directory(live.parent)


def exchange_below(new: int, live: int, name: str) -> bool:
    """Exchanges the entries with one name in two open directories, atomically.

    Returns False if the platform does not support it. Raises `OSError`.
    """
    return _exchange(os.fsencode(name), os.fsencode(name), (new, live))


def _exchange(new: bytes, live: bytes, below: tuple[int, int] = (_AT_FDCWD, _AT_FDCWD)) -> bool:
    """Returns False if the platform does not support it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        result = libc.renameatx_np(below[0], new, below[1], live, _RENAME_SWAP)
    elif hasattr(libc, "renameat2"):
        result = libc.renameat2(below[0], new, below[1], live, _RENAME_EXCHANGE)
    else:
        return False
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_OFFERED:
        return False
    raise OSError(code, os.strerror(code), os.fsdecode(live))
