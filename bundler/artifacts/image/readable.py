"""Makes a byte stream of a function."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 256 * 1024


class Readable(io.RawIOBase):
    """fill: reads into a buffer and returns the number of bytes; 0 at the end. below: the streams
    to close with this one."""

    def __init__(self, fill: Callable[[memoryview], int], *below: BinaryIO) -> None:
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
        for stream in self._below:
            stream.close()
        super().close()
