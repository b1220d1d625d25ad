"""Deflates on all processors, with identical bytes for any number of them.

The stream is cut every `_CHUNK_BYTES`. Each chunk is deflated separately and ends at a byte
boundary (zlib's sync flush), so that the concatenated chunks are an ordinary stream. Data that
cannot shrink, because it is compressed or random, is stored: zlib takes the longest for it and
gains nothing. Data without repetitions, such as digests or base64, is encoded without searching for
them: that is faster, and the result is smaller.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bundler.system.parallel import processors

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

# The fastest level: a layer is compressed for each new state and read a few times. Level 6 takes
# several times as long to save another tenth.
_LEVEL = 1
_CHUNK_BYTES = 512 * 1024
# The number of chunks from which starting threads pays off.
_ALONE = 8
# More chunks would only wait to be hashed and sent.
_MOST_THREADS = 4
# Whether a block can shrink is estimated from the number of different values in every 61st byte,
# about 270 bytes: text has fewer than 100, random bytes have 167 and hardly ever fewer. 61 is
# prime, so that every column of fixed-size records is sampled.
_BLOCK_BYTES = 16 * 1024
_STRIDE = 61
_DENSE = 140
# Magic, deflate, no flags, no time, "fastest", unknown system (RFC 1952, 2.3.1).
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
# An empty last block (RFC 1951, 3.2.6).
_LAST_BLOCK = b"\x03\x00"
_MOST_STORED = 0xFFFF
# How many bytes from the middle are used to find the better way, where that matters.
_TRIED_BYTES = 16 * 1024
_WORTH_TRYING_BYTES = 128 * 1024


class Deflate:
    """Compresses a stream piece by piece into a sink. Uses the memory of a few chunks per thread.

    crc, size: of the input. packed: the number of bytes of output.
    """

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self.crc = 0
        self.size = 0
        self.packed = 0
        self._chunk = bytearray()
        self._done = 0
        self._threads = min(processors(), _MOST_THREADS)
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[bytes]] = deque()

    def write(self, data: bytes) -> None:
        self.crc = zlib.crc32(data, self.crc)
        self.size += len(data)
        view = memoryview(data)
        while view:
            taken = view[: _CHUNK_BYTES - len(self._chunk)]
            self._chunk += taken
            view = view[len(taken) :]
            if len(self._chunk) == _CHUNK_BYTES:
                self._pack(self._chunk)
                self._chunk = bytearray()

    def finish(self) -> None:
        if self._chunk:
            self._pack(self._chunk)
        self._hand_on(0)
        if self._pool is not None:
            self._pool.shutdown()
        self._hand(_LAST_BLOCK)

    def _pack(self, chunk: bytearray) -> None:
        if self._done < _ALONE or self._threads == 1:
            self._done += 1
            self._hand(_deflated(chunk))
            return
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(max_workers=self._threads)
        self._waiting.append(self._pool.submit(_deflated, chunk))
        self._hand_on(self._threads + 2)

    def _hand_on(self, left: int) -> None:
        """Passes finished chunks to the sink, in order, until only so many are in progress."""
        while self._waiting and (len(self._waiting) > left or self._waiting[0].done()):
            self._hand(self._waiting.popleft().result())

    def _hand(self, packed: bytes) -> None:
        self.packed += len(packed)
        self._sink(packed)


class Gzip:
    """Compresses a stream piece by piece into one gzip member."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._deflate = Deflate(sink)
        sink(_HEADER)

    def write(self, data: bytes) -> None:
        self._deflate.write(data)

    def finish(self) -> None:
        self._deflate.finish()
        size = self._deflate.size & 0xFFFFFFFF
        self._sink(self._deflate.crc.to_bytes(4, "little") + size.to_bytes(4, "little"))


def _deflated(chunk: bytearray) -> bytes:
    view = memoryview(chunk)
    out: list[bytes | memoryview] = []
    for start, end, dense in _runs(view):
        if dense:
            out.extend(_stored(view[start:end]))
        else:
            out += _shrunk(view[start:end], _strategy(view[start:end]))
    return b"".join(out)


def _strategy(view: memoryview) -> int:
    if len(view) < _WORTH_TRYING_BYTES:
        return zlib.Z_DEFAULT_STRATEGY
    middle = (len(view) - _TRIED_BYTES) // 2
    tried = view[middle : middle + _TRIED_BYTES]
    ways = (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY)
    return min(ways, key=lambda way: sum(map(len, _shrunk(tried, way))))


def _shrunk(view: memoryview, strategy: int) -> tuple[bytes, bytes]:
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return deflate.compress(view), deflate.flush(zlib.Z_SYNC_FLUSH)


def _runs(view: memoryview) -> Iterator[tuple[int, int, bool]]:
    """Runs of similar blocks: start, end, and whether they are too dense to shrink."""
    start, before = 0, False
    for position in range(0, len(view), _BLOCK_BYTES):
        dense = len(set(view[position : position + _BLOCK_BYTES : _STRIDE])) >= _DENSE
        if dense != before and position > start:
            yield start, position, before
            start = position
        before = dense
    yield start, len(view), before


def _stored(view: memoryview) -> Iterator[bytes | memoryview]:
    """Uncompressed blocks (RFC 1951, 3.2.4)."""
    for position in range(0, len(view), _MOST_STORED):
        block = view[position : position + _MOST_STORED]
        size = len(block)
        yield b"\0" + size.to_bytes(2, "little") + (size ^ _MOST_STORED).to_bytes(2, "little")
        yield block
