"""Computes the digest of a state layer while the states are read from a container."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack
from functools import partial
from typing import IO, BinaryIO

import msgspec

from bundler.artifacts.image.layer import END, Layer
from bundler.state.artifact import Member
from bundler.system.readable import Readable

_SPOOLED_BYTES = 1024 * 1024
_CHUNK_BYTES = 256 * 1024


class Remade:
    """A layer that is recreated from what is read.

    An engine lists some directories in a different order than the layer: what comes too early is
    kept in a temporary file. stack: closes those.
    """

    def __init__(self, layer: Layer, stack: ExitStack) -> None:
        self._digest = hashlib.sha256()
        self._stack = stack
        self._early: dict[str, IO[bytes]] = {}
        self._steps = self._reading(layer)
        # The path of the next file; empty at the end.
        self._awaited = next(self._steps)

    def taking(self, member: Member, top: str) -> Member:
        """The same member; its bytes are recorded when they are read. top: of its directory."""
        if member.kind != "file" or not member.size or not self._awaited:
            return member
        path = f"{top}/{member.path}".lstrip("/")
        return msgspec.structs.replace(member, open=partial(self._open, member, path))

    def diff_id(self) -> str | None:
        """The layer's digest; None if not all of its files were read."""
        return None if self._awaited else f"sha256:{self._digest.hexdigest()}"

    def _open(self, member: Member, path: str) -> BinaryIO:
        if path == self._awaited:
            take: Callable[[bytes], object] = self._take
        else:
            spool = tempfile.SpooledTemporaryFile(_SPOOLED_BYTES)  # noqa: SIM115  # the stack does
            self._early[path] = self._stack.enter_context(spool)
            take = spool.write
        stream = member.open()

        def fill(buffer: memoryview) -> int:
            data = stream.read(len(buffer))
            buffer[: len(data)] = data
            if data:
                take(data)
            return len(data)

        return Readable(fill).buffered()

    def _take(self, data: bytes) -> None:
        self._awaited = self._steps.send(data)

    def _reading(self, layer: Layer) -> Generator[str, bytes, None]:
        """Hashes the layer. Yields the path of a file whenever it needs more of its bytes; the
        manifests are known."""
        for entry in layer.entries():
            self._digest.update(entry.header())
            content = entry.content
            if content is None or not content.size:
                continue
            if isinstance(content.source, bytes):
                self._early[entry.path] = io.BytesIO(content.source)
            if (early := self._early.pop(entry.path, None)) is None:
                left = content.size
                while left:
                    data = yield entry.path
                    self._digest.update(data)
                    left -= len(data)
            else:
                early.seek(0)
                with early:
                    while chunk := early.read(_CHUNK_BYTES):
                        self._digest.update(chunk)
            self._digest.update(bytes(entry.padded_size - content.size))
        self._digest.update(END)
        while True:  # a file that is longer than its size goes on
            yield ""
