"""A local folder as a store, with the guarantees of a bucket, by locks and renames.

A conditional write holds ``.lock`` (``flock``, which the kernel releases when a writer dies) while
it compares and renames. Everything else is written by a rename. On a network file system this is as
reliable as its ``flock`` and its renames.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from bundler.errors import ConfigurationError, VerificationFailed
from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY
from bundler.state.tree import name_problem
from bundler.store.objects import Buffer, Listed, StoredObject
from bundler.store.records import FORMAT_NAME
from bundler.system.atomic import io_errors, sync_directory
from bundler.system.walking import walk

_TEMPORARY = ".part-"
_IGNORE = ".gitignore"


class Folder:
    """`bundler.store.objects.Objects` in a folder, which is created at the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of_url(cls, url: str) -> Folder:
        """Raises `ConfigurationError` for a host, a relative path or a folder in a state
        directory."""
        host, slash, path = url.removeprefix("file://").partition("/")
        if host not in ("", "localhost") or not slash or "\0" in unquote(path):
            raise ConfigurationError(
                f"{url!r} is not a local folder.", hint="Use file:///an/absolute/path."
            )
        root = Path("/" + unquote(path))
        real = Path(os.path.realpath(root))  # whatever cannot be read is reported when it is used
        for above in (root, real, *real.parents):
            if above.name == STATE_DIRECTORY or os.path.exists(above / MANIFEST_NAME):
                raise ConfigurationError(
                    f"{url} is in the state directory {above}, which may only contain its states.",
                    hint="Move the store to a folder outside of it, and use that folder's URL.",
                )
        return cls(root)

    @property
    def url(self) -> str:
        return f"file://{self.root}".replace("%", "%25")

    def _path(self, name: str) -> Path:
        """The path of an object. Raises `VerificationFailed` for a name that leads elsewhere."""
        if problem := name_problem(name):
            raise VerificationFailed(f"{self.url}: the object name {name!r} {problem}.")
        return self.root / name

    def get(self, name: str) -> StoredObject | None:
        path = self._path(name)
        with io_errors(path):
            try:
                with open(path, "rb") as stream:
                    data = stream.read()
                    return StoredObject(data, _tag(data), os.fstat(stream.fileno()).st_mtime)
            except FileNotFoundError:
                return None

    def read(self, name: str, start: int, length: int) -> Buffer:
        path = self._path(name)
        if not path.exists():
            raise FileNotFoundError(name)
        with io_errors(path), open(path, "rb", buffering=0) as stream:
            return os.pread(stream.fileno(), length, start)

    def exists(self, name: str) -> bool:
        path = self._path(name)
        with io_errors(path):
            return path.exists()

    def create(self, name: str, data: bytes) -> bool:
        path = self._path(name)
        if name == FORMAT_NAME:  # in a repository, no commit has its states
            self.create(_IGNORE, b"*\n")
        with io_errors(path), self._new(path, [data]) as temporary:
            try:
                os.link(temporary, path)  # unlike a rename, this fails if the name exists
            except FileExistsError:
                return False
            sync_directory(path.parent)
        return True

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        path = self._path(name)
        with io_errors(path), self._locked():
            now = self.get(name)
            if now is None or now.tag != tag:
                return False
            self._put(path, [data])
        return True

    def write(self, name: str, chunks: Iterable[Buffer], size: int) -> None:  # noqa: ARG002  # a bucket's needs the size
        path = self._path(name)
        with io_errors(path):
            self._put(path, chunks)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            path = self._path(name)
            with io_errors(path), suppress(FileNotFoundError):
                os.unlink(path)

    def list(self, prefix: str) -> Iterator[Listed]:
        with io_errors(self.root / prefix):
            for directory, _, names in walk(self.root / prefix, missing_ok=True):
                for file in names:
                    path = Path(directory, file)
                    if not file.startswith(_TEMPORARY):
                        # Whatever was removed since the folder was read is left out.
                        with io_errors(path), suppress(FileNotFoundError):
                            status = path.stat()
                            name = path.relative_to(self.root).as_posix()
                            yield Listed(name, status.st_size, status.st_mtime)

    def _put(self, path: Path, chunks: Iterable[Buffer]) -> None:
        with self._new(path, chunks) as temporary:
            os.replace(temporary, path)
            sync_directory(path.parent)

    @contextmanager
    def _new(self, path: Path, chunks: Iterable[Buffer]) -> Iterator[Path]:
        """A file with these bytes next to the path, synced; removed at the end unless it was
        renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb") as stream:
                stream.writelines(chunks)
                stream.flush()
                os.fsync(stream.fileno())
            yield temporary
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
