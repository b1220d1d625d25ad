"""Bytes that come in pieces, as a stream."""

from __future__ import annotations

import io
from collections.abc import Generator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


def stream_of(
    pieces: Generator[ReadableBuffer, None, None], buffer_size: int = io.DEFAULT_BUFFER_SIZE
) -> BinaryIO:
    """A stream over the pieces; closing it closes the generator. What that raises, reading does."""
    return io.BufferedReader(_Chunks(pieces), buffer_size)


class _Chunks(io.RawIOBase):
    def __init__(self, pieces: Generator[ReadableBuffer, None, None]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece).cast("B")
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        self._pieces.close()
        super().close()
