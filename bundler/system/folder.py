"""An open directory: all operations use plain names below its descriptor.

A path can lead elsewhere: any of its parts may be a link from a cloned repository. An
`OpenDirectory` is opened once, without following a link, and names below it cannot leave it.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.errors import ConfigurationError, InputOutputError
from bundler.system.atomic import exchange_below, io_errors

if TYPE_CHECKING:
    from typing_extensions import Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that nobody writes to would wait forever.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OpenDirectory:
    """A directory that is open until the end of its ``with`` statement.

    path: for messages only. Raises `ConfigurationError` for a link and for anything that is not a
    directory, `FileNotFoundError` if it does not exist.
    """

    def __init__(self, path: Path, *, below: OpenDirectory | None = None) -> None:
        self.path = path
        with _located(path):
            self.descriptor: int = (
                os.open(path, _DIRECTORY)
                if below is None
                else os.open(path.name, _DIRECTORY, dir_fd=below.descriptor)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        _close(self.descriptor)

    def folder(self, name: str) -> OpenDirectory:
        """Opens a directory in this one. Raises as the class does."""
        return OpenDirectory(self.path / _checked(name), below=self)

    def make_folder(self, name: str) -> None:
        """Creates a directory, unless the name exists. Raises `OSError`."""
        with suppress(FileExistsError), _located(self.path / name):
            os.mkdir(_checked(name), dir_fd=self.descriptor)

    def names(self) -> list[str]:
        """The names of all entries. Raises `OSError`."""
        # A duplicated descriptor, as `os.listdir` uses, shares its read position.
        descriptor = os.open(".", _DIRECTORY, dir_fd=self.descriptor)
        try:
            return os.listdir(descriptor)
        finally:
            _close(descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """The status of an entry, without following links; None if it does not exist. Raises
        `OSError`."""
        with suppress(FileNotFoundError), _located(self.path / name):
            return os.stat(_checked(name), dir_fd=self.descriptor, follow_symlinks=False)
        return None

    def is_folder(self, name: str) -> bool:
        """Whether an entry is a directory, and not a link to one."""
        status = self.status(name)
        return status is not None and stat.S_ISDIR(status.st_mode)

    @contextmanager
    def file(self, name: str, flags: int = os.O_RDONLY) -> Iterator[int]:
        """The descriptor of a regular file.

        Raises `FileNotFoundError` if it does not exist, `ConfigurationError` for anything but a
        regular file.
        """
        path = self.path / name
        with _located(path):
            descriptor = os.open(_checked(name), flags | _FILE, 0o644, dir_fd=self.descriptor)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _foreign(path, "is not a regular file")
            yield descriptor
        finally:
            _close(descriptor)

    def read(self, name: str) -> bytes | None:
        """A regular file's bytes; None if it does not exist.

        Raises `InputOutputError` if it cannot be read, `ConfigurationError` as `file` does.
        """
        with io_errors(self.path / name):
            try:
                with self.file(name) as descriptor, open(descriptor, "rb", closefd=False) as stream:
                    return stream.read()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Writes a temporary file and renames it into place. Raises `OSError`."""
        new = f"{_checked(name)}.{os.getpid()}.new"
        with self.file(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            try:
                with open(descriptor, "wb", closefd=False) as stream:
                    stream.write(data)
                if durable:
                    os.fsync(descriptor)
                self.move(new, self, name)
            except BaseException:
                self.remove(new, missing_ok=True)
                raise
        if durable:
            self.sync()

    def move(self, name: str, target: OpenDirectory, new: str | None = None) -> None:
        """Renames an entry, possibly into another open directory. Raises `OSError`."""
        with _located(self.path / name):
            os.replace(
                _checked(name),
                _checked(new or name),
                src_dir_fd=self.descriptor,
                dst_dir_fd=target.descriptor,
            )

    def exchange(self, name: str, live: OpenDirectory) -> None:
        """Exchanges an entry with the one of the same name in `live`.

        If the platform has no exchange, the entry is missing in `live` for a moment; the caller's
        journal covers that. Raises `OSError`.
        """
        if live.status(name) is None:
            self.move(name, live)
        elif not exchange_below(self.descriptor, live.descriptor, _checked(name)):
            live.move(name, self, f"@replaced-{name}")
            self.move(name, live)
        live.sync()

    def remove(self, name: str, *, missing_ok: bool = False) -> None:
        """Removes a file, or a link itself. Raises `OSError`."""
        try:
            with _located(self.path / name):
                os.unlink(_checked(name), dir_fd=self.descriptor)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def clear(self, name: str) -> None:
        """Removes whatever has a name; for a link, the link itself. Raises `OSError`."""
        if self.is_folder(name):
            self.remove_tree(name)
        else:
            self.remove(name, missing_ok=True)

    def remove_tree(self, name: str) -> None:
        """Removes a directory with its contents, even if it is read-only.

        A link is removed, never followed. Directories are moved to the top and emptied one by one,
        so that any depth works. Raises `OSError`, `ConfigurationError` if it is a link.
        """
        if self.status(name) is None:
            return
        _make_writable(self, name)
        with self.folder(name) as top:
            pending = _remove_files(top)
            while pending:
                child = pending.pop()
                _make_writable(top, child)
                with top.folder(child) as folder:
                    for deeper in _remove_files(folder):
                        _make_writable(folder, deeper)  # otherwise it cannot change its parent
                        pending.append(uuid.uuid4().hex)
                        folder.move(deeper, top, pending[-1])
                os.rmdir(child, dir_fd=top.descriptor)
        os.rmdir(_checked(name), dir_fd=self.descriptor)

    def sync(self) -> None:
        """Syncs the names in it. Raises `OSError`."""
        os.fsync(self.descriptor)


def _close(descriptor: int) -> None:
    """Closes a descriptor. Its data is already on disk, so a failure does not matter."""
    with suppress(OSError):
        os.close(descriptor)


def _remove_files(folder: OpenDirectory) -> list[str]:
    """Removes everything but directories; returns their names."""
    folders = []
    for name in folder.names():
        if folder.is_folder(name):
            folders.append(name)
        else:
            folder.remove(name)
    return folders


def _make_writable(folder: OpenDirectory, name: str) -> None:
    status = folder.status(name)
    if status and stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o700 != 0o700:  # noqa: PLR2004
        with _located(folder.path / name):
            os.chmod(name, 0o700, dir_fd=folder.descriptor)


@contextmanager
def _located(path: Path) -> Iterator[None]:
    """Adds the whole path to an `OSError`; raises `ConfigurationError` for a link or another
    kind of file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            kind = "a symbolic link" if path.is_symlink() else "not a directory"
            raise _foreign(path, f"is {kind}") from error
        error.filename = os.fspath(path)
        raise


def _foreign(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} {why}, so state-bundler did not create it.",
        hint="Check what it is. If nothing needs it, remove it; then run the command again.",
    )


def _checked(name: str) -> str:
    """A name that stays in its directory. Raises `InputOutputError` for any other."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InputOutputError(f"{name!r} is not a valid file name.")
    return name
