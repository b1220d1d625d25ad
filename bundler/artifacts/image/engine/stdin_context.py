"""Input on stdin: a Dockerfile, or a context as an archive.

It is read before the refresh, so that a Dockerfile that cannot succeed is refused first. docker
then gets every byte of an archive except the state directories.
"""

from __future__ import annotations

import posixpath
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from bundler.artifacts.image.engine.arguments import Arguments
from bundler.artifacts.image.engine.left_out import Names
from bundler.errors import UsageError
from bundler.system.credential_files import BY_CONTENT, has_credentials_name, is_private

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

STDIN = "-"
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Piped:
    """content: our temporary file. is_archive: whether it is a context, decompressed; else it is
    a Dockerfile."""

    content: BinaryIO
    is_archive: bool

    def dockerfile(self, path: str) -> bytes | None:
        """The Dockerfile. path: in an archive; None if it is not there."""
        self.content.seek(0)
        if not self.is_archive:
            return self.content.read()
        with _opened(self.content) as archive:
            for member in archive:
                if member.isreg() and _path(member) == posixpath.normpath(path):
                    found = archive.extractfile(member)
                    return found.read() if found is not None else None
        return None

    def credentials(self, names: Names) -> Iterator[str]:
        """The members of an archive that contain credentials, unless they are named."""
        found: set[str] = set()
        with _opened(self.content) as archive:
            for member in archive:
                parts = _path(member).split("/")
                above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
                path = next((path for path in above if _is_secret(archive, member, path)), None)
                if (
                    path is None
                    or path in found
                    or any(names.of_path(each, credentials=True) for each in above)
                ):
                    continue
                found.add(path)
                yield path

    def write(self, stream: BinaryIO, places: Sequence[str], left_out: Sequence[str] = ()) -> None:
        """Writes docker's input: every byte, but of an archive no member below one of the places.

        places: the ends of state directories' paths. left_out: whole paths. An archive is wrapped
        in gzip without compression: docker recognises it by its first bytes, and an uncompressed
        one not with every kind of header.
        """
        if not self.is_archive:
            _copy(self.content, 0, None, stream)
            return
        import gzip

        done = 0
        tops = tuple(f"{path}/" for path in left_out)
        with (
            gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=0) as packed,
            _opened(self.content) as archive,
        ):
            while (member := archive.next()) is not None:
                path = _path(member)
                is_state = any(f"/{place}/" in f"/{path}/" for place in places)
                is_out = is_state or f"{path}/".startswith(tops)
                _copy(self.content, done, member.offset if is_out else archive.offset, packed)
                done = archive.offset
            _copy(self.content, done, None, packed)


@contextmanager
def take(arguments: Arguments, stdin: BinaryIO | None = None) -> Iterator[Piped | None]:
    """Reads stdin if the arguments say so; None otherwise. The result is valid inside the block.

    Raises `UsageError` if the input is empty, unreadable, or would be both context and Dockerfile.
    """
    by_stdin = [value for value in (arguments.context, arguments.file) if value == STDIN]
    if not by_stdin:
        yield None
        return
    if len(by_stdin) > 1:
        raise UsageError(
            "stdin cannot be both the Dockerfile and the context.",
            hint="With the Dockerfile on stdin, the context must be a folder: "
            "state-bundler build docker -f - .",
        )
    with tempfile.TemporaryFile(prefix="state-bundler-") as content:
        shutil.copyfileobj(stdin or sys.stdin.buffer, content, _CHUNK_BYTES)
        if not content.tell():
            raise UsageError(
                "The standard input is empty.",
                hint="Pass a Dockerfile, or a tar archive of the context.",
            )
        if arguments.file == STDIN:
            yield Piped(content, is_archive=False)
            return
        with _unpacked(content) as plain:
            yield Piped(plain, is_archive=plain is not content or tarfile.is_tarfile(content))


@contextmanager
def _unpacked(content: BinaryIO) -> Iterator[BinaryIO]:
    """The same file if it is not compressed."""
    import bz2
    import gzip
    import lzma

    # By the first bytes. docker takes anything that is neither compressed nor a tar for a
    # Dockerfile.
    kinds: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    content.seek(0)
    begins = content.read(6)
    content.seek(0)
    unpacking = next((kinds[first] for first in kinds if begins.startswith(first)), None)
    if unpacking is None:
        yield content
        return
    with tempfile.TemporaryFile(prefix="state-bundler-") as plain:
        try:
            with unpacking(content) as source:
                shutil.copyfileobj(source, plain, _CHUNK_BYTES)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise UsageError("The archive on stdin cannot be extracted.") from error
        yield plain


@contextmanager
def _opened(content: BinaryIO) -> Iterator[tarfile.TarFile]:
    content.seek(0)
    try:
        with tarfile.open(fileobj=content, mode="r:") as archive:
            yield archive
    except tarfile.TarError as error:
        raise UsageError(f"The archive on stdin cannot be read: {error}.") from error


def _path(member: tarfile.TarInfo) -> str:
    return posixpath.normpath(member.name).lstrip("/")


def _is_secret(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> bool:
    if posixpath.basename(path) == ".git":
        return True
    if not has_credentials_name(path):
        return False
    is_key_file = member.isreg() and path == _path(member) and path.lower().endswith(BY_CONTENT)
    content = archive.extractfile(member) if is_key_file else None
    return content is None or is_private(content.read())


def _copy(content: BinaryIO, start: int, end: int | None, stream: SupportsWrite[bytes]) -> None:
    content.seek(start)
    left = sys.maxsize if end is None else end - start
    while left and (chunk := content.read(min(_CHUNK_BYTES, left))):
        left -= len(chunk)
        stream.write(chunk)
