"""Makes a byte stream of a function, or of bytes that come in pieces."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

BUFFER_BYTES = 256 * 1024


class Readable(io.RawIOBase):
    """fill: reads into a buffer and returns the number of bytes; 0 at the end. below: to close with
    this one."""

    def __init__(
        self, fill: Callable[[memoryview], int], *below: BinaryIO | Generator[Any, None, None]
    ) -> None:
        super().__init__()
        self._fill = fill
        self._below = below

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return self._fill(memoryview(buffer).cast("B"))

    def buffered(self) -> BinaryIO:
        return io.BufferedReader(self, BUFFER_BYTES)

    def drain(self) -> None:
        """Reads what is left, also if the stream was closed."""
        rest = memoryview(bytearray(BUFFER_BYTES))
        while self._fill(rest):
            pass

    def close(self) -> None:
        for below in self._below:
            below.close()
        super().close()


def stream_of(pieces: Generator[ReadableBuffer, None, None]) -> BinaryIO:
    """A stream over the pieces. Reading raises what the generator does; closing closes it."""
    left = memoryview(b"")

    def fill(buffer: memoryview) -> int:
        nonlocal left
        while not left:
            piece = next(pieces, None)
            if piece is None:
                return 0
            left = memoryview(piece).cast("B")
        count = min(len(buffer), len(left))
        buffer[:count] = left[:count]
        left = left[count:]
        return count

    return Readable(fill, pieces).buffered()
