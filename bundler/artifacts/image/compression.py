"""Compression of a layer's tar stream: none, gzip or zstd.

Compressing is deterministic: no time, no name and a fixed level. Decompressing goes by the first
bytes, not by the media type, since some builders write the wrong one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from bundler.artifacts.image.deflating import Gzip
from bundler.errors import ToolFailed, VerificationFailed, io_failure
from bundler.system.installed import installed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Compression = Literal["none", "gzip", "zstd"]

_ZSTD_LEVEL = 3
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAGIC_BYTES = 4
_DRAIN_BYTES = 256 * 1024


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

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise VerificationFailed("A layer's blob decompresses to more than any layer may have.")


def is_packed(magic: bytes) -> Compression | None:
    """The compression of a blob that begins with these four bytes; None if it is uncompressed."""
    if magic.startswith(_GZIP_MAGIC):
        return "gzip"
    return "zstd" if magic.startswith(_ZSTD_MAGIC) else None


def unpacked(stream: BinaryIO, most: int | None = None) -> BinaryIO:
    """The tar stream inside a layer's blob; closing it closes the blob's stream.

    most: the maximum number of bytes. Reading raises `VerificationFailed` if there are more, or if
    the blob is truncated or damaged.
    """
    return unpack(stream, None if most is None else Allowance(most))[0]


def unpack(stream: BinaryIO, most: Allowance | None = None) -> tuple[BinaryIO, bool]:
    """`unpacked`, and whether the blob was compressed: if not, the stream is the blob itself."""
    buffered = io.BufferedReader(_Raw(stream))
    magic = buffered.peek(_MAGIC_BYTES)[:_MAGIC_BYTES]
    inner: Any = buffered
    if magic.startswith(_GZIP_MAGIC):
        inner = gzip.GzipFile(fileobj=buffered, mode="rb")
    elif magic == _ZSTD_MAGIC:
        inner = _zstandard().ZstdDecompressor().stream_reader(buffered, read_across_frames=True)
    plain = _Refusing(inner, cast("BinaryIO", buffered), most)
    return io.BufferedReader(plain, buffer_size=256 * 1024), inner is not buffered


class _Raw(io.RawIOBase):
    """A stream that only needs ``read``, such as a tar member or an HTTP body."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        # Most streams can fill a buffer, which saves copying every byte.
        self._fill: Any = getattr(stream, "readinto", None)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if self._fill is not None:
            return int(self._fill(view) or 0)
        data = self._stream.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Refusing(_Raw):
    """Reports damaged bytes as such, instead of the library's error."""

    def __init__(self, stream: BinaryIO, below: BinaryIO, most: Allowance | None) -> None:
        super().__init__(stream)
        self._below = below
        self._most = most

    def close(self) -> None:
        super().close()
        self._below.close()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            count = super().readinto(buffer)
        except (EOFError, OSError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's, not gzip's
                raise io_failure(error, getattr(self._below, "name", None)) from error
            raise VerificationFailed(
                "A layer's blob is damaged: it cannot be decompressed."
            ) from error
        except Exception as error:
            if type(error).__name__ == "ZstdError":  # the library may not be installed here
                raise VerificationFailed(
                    "A layer's blob is damaged: it cannot be decompressed."
                ) from error
            raise
        if self._most is not None:
            self._most.take(count)
        return count


def _zstandard() -> Any:
    from importlib import import_module

    try:
        return import_module("zstandard")
    except ImportError as error:
        raise ToolFailed(
            "The image has zstd-compressed layers, which this Python cannot read.",
            hint=f"Install the library: {installed().command('zstd')}",
        ) from error


class Hashing(_Raw):
    """Passes a stream's bytes through and hashes them."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._digest = hashlib.sha256()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        count = super().readinto(view)
        self._digest.update(view[:count])
        return count

    def drain(self) -> str:
        """Reads the rest and returns the sha256 of the whole stream, in hexadecimal."""
        rest = bytearray(_DRAIN_BYTES)
        while self.readinto(rest):
            pass
        return self._digest.hexdigest()
