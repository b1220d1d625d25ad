"""Compression of a layer's tar stream: none, gzip or zstd.

Compressing is deterministic: no time, no name and a fixed level. Decompressing goes by the first
bytes, not by the media type, since some builders write the wrong one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Literal, cast

from bundler.artifacts.image.deflating import Gzip
from bundler.errors import ToolFailed, VerificationFailed, io_failure
from bundler.system.installed import installed
from bundler.system.readable import Readable

Compression = Literal["none", "gzip", "zstd"]

_ZSTD_LEVEL = 3
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a frame of metadata may come first
_MAGIC_BYTES = 4
# No program's layer decompresses to this much; one that does is an attack.
_FREE_OF_SUSPICION_BYTES = 1024**3
_MAX_RATIO = 200


def compressed(pieces: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
    """Compresses a tar stream. Raises `ToolFailed` if the zstd library is not installed."""
    if compression == "none":
        yield from pieces
        return
    packer: Any = Gzip()
    if compression == "zstd":
        packer = _zstandard().ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


class Allowance:
    """How many bytes blobs may still decompress to."""

    def __init__(self, left: int) -> None:
        self._left = left

    @staticmethod
    def for_packed(size: int) -> Allowance:
        """For blobs of this many bytes. A store sends no more than it announced."""
        return Allowance(max(_FREE_OF_SUSPICION_BYTES, size * _MAX_RATIO))

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise VerificationFailed("A layer's blob decompresses to more than any layer may have.")


def is_packed(magic: bytes) -> Compression | None:
    """The compression of a blob that begins with these four bytes; None if it is uncompressed."""
    if magic.startswith(_GZIP_MAGIC):
        return "gzip"
    is_zstd = magic.startswith(_ZSTD_MAGIC) or _ZSTD_SKIPPABLE.match(magic)
    return "zstd" if is_zstd else None


def unpack(stream: BinaryIO, allowed: Allowance | None = None) -> tuple[BinaryIO, bool]:
    """The tar stream inside a layer's blob, and whether the blob was compressed.

    Closing the tar stream closes the blob's. Reading raises `VerificationFailed` if there are more
    bytes than are allowed, or if the blob is truncated or damaged.
    """
    blob: Any = io.BufferedReader(cast("io.RawIOBase", stream))
    packed = is_packed(blob.peek(_MAGIC_BYTES)[:_MAGIC_BYTES])
    inner: Any = blob
    if packed == "gzip":
        inner = gzip.GzipFile(fileobj=blob, mode="rb")
    elif packed == "zstd":
        inner = _zstandard().ZstdDecompressor().stream_reader(blob, read_across_frames=True)

    def fill(buffer: memoryview) -> int:
        try:
            count = int(inner.readinto(buffer))
        except Exception as error:
            _report(error, stream)
            raise
        if allowed is not None:
            allowed.take(count)
        return count

    return Readable(fill, inner, blob).buffered(), packed is not None


def _report(error: Exception, stream: BinaryIO) -> None:
    """Raises what a library's error means, if it is one."""
    if isinstance(error, OSError) and error.errno is not None:  # the disk's, not gzip's
        raise io_failure(error, getattr(stream, "name", None)) from error
    is_damage = isinstance(error, (EOFError, OSError, zlib.error))
    if is_damage or type(error).__name__ == "ZstdError":  # the library may not be installed here
        raise VerificationFailed("A layer's blob is damaged: it cannot be decompressed.") from error


def _zstandard() -> Any:
    from importlib import import_module

    try:
        return import_module("zstandard")
    except ImportError as error:
        raise ToolFailed(
            "The image has zstd-compressed layers, which this Python cannot read.",
            hint=f"Install the library: {installed().command('zstd')}",
        ) from error


class Hashing(Readable):
    """Passes a stream's bytes through and hashes them."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(self._hashed, stream)
        self._stream: Any = stream
        self._digest = hashlib.sha256()

    def _hashed(self, buffer: memoryview) -> int:
        count = int(self._stream.readinto(buffer))
        self._digest.update(buffer[:count])
        return count

    def whole_digest(self) -> str:
        """Reads the rest and returns the digest of the whole stream, as images name it."""
        self.drain()
        return f"sha256:{self._digest.hexdigest()}"
