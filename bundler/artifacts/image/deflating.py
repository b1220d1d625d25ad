"""Deflates on all processors, with identical bytes for any number of them.

The stream is cut every `_CHUNK_BYTES`. Each chunk is deflated separately and ends at a byte
boundary (zlib's sync flush), so that the concatenated chunks are an ordinary stream. Both classes
are used like the objects of `zlib.compressobj`, and need the memory of a few chunks per thread.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bundler.system.parallel import processors

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

# The fastest level: a layer is compressed for each new state and read a few times. Level 6 takes
# several times as long to save another tenth.
_LEVEL = 1
_CHUNK_BYTES = 512 * 1024
# More chunks would only wait to be hashed and sent.
_MOST_THREADS = 4
# The ways to deflate a chunk, the fastest first: data that is compressed or random is stored, data
# without repetitions (digests, base64) is encoded without searching for them. On two processors
# that takes a sixth of zlib's time for random data and a quarter for base64, which also shrinks.
_WAYS = (
    (0, zlib.Z_DEFAULT_STRATEGY),
    (_LEVEL, zlib.Z_HUFFMAN_ONLY),
    (_LEVEL, zlib.Z_DEFAULT_STRATEGY),
)
# Pieces of a chunk that are deflated in each way to choose one. Their distance fits no record size.
_SAMPLE_BYTES = 2 * 1024
_SAMPLE_DISTANCE = 40_009
# Magic, deflate, no flags, no time, "fastest", unknown system (RFC 1952, 2.3.1).
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
# An empty last block (RFC 1951, 3.2.6).
_LAST_BLOCK = b"\x03\x00"


class Deflate:
    """Compresses to a raw stream."""

    def __init__(self) -> None:
        self._chunk = bytearray()
        self._threads = min(processors(), _MOST_THREADS)
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[bytes]] = deque()

    def compress(self, data: bytes) -> bytes:
        self._chunk += data
        ready: list[bytes] = []
        while len(self._chunk) >= _CHUNK_BYTES:
            chunk = bytes(self._chunk[:_CHUNK_BYTES])
            del self._chunk[:_CHUNK_BYTES]
            ready += self._deflated(chunk)
        return b"".join(ready)

    def flush(self) -> bytes:
        ready = [*self._finished(0), _deflated(bytes(self._chunk)), _LAST_BLOCK]
        if self._pool is not None:
            self._pool.shutdown()
        return b"".join(ready)

    def _deflated(self, chunk: bytes) -> Iterator[bytes]:
        """What is ready, in order, now that this chunk is to be deflated, too."""
        if self._threads == 1:
            yield _deflated(chunk)
            return
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(max_workers=self._threads)
        self._waiting.append(self._pool.submit(_deflated, chunk))
        yield from self._finished(self._threads + 2)

    def _finished(self, left: int) -> Iterator[bytes]:
        """Finished chunks, and then more until only so many are in progress."""
        while self._waiting and (len(self._waiting) > left or self._waiting[0].done()):
            yield self._waiting.popleft().result()


class Gzip:
    """Compresses to one gzip member."""

    def __init__(self) -> None:
        self._deflate = Deflate()
        self._header = _HEADER
        self._crc = 0
        self._size = 0

    def compress(self, data: bytes) -> bytes:
        header, self._header = self._header, b""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        return header + self._deflate.compress(data)

    def flush(self) -> bytes:
        size = self._size & 0xFFFFFFFF
        trailer = self._crc.to_bytes(4, "little") + size.to_bytes(4, "little")
        return self._header + self._deflate.flush() + trailer


def _deflated(chunk: bytes) -> bytes:
    starts = range(0, len(chunk), _SAMPLE_DISTANCE)
    sample = b"".join(chunk[start : start + _SAMPLE_BYTES] for start in starts)
    level, strategy = min(_WAYS, key=lambda way: len(_deflated_by(sample, *way)))
    return _deflated_by(chunk, level, strategy)


def _deflated_by(data: bytes, level: int, strategy: int) -> bytes:
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
