"""Computes the digest of a state layer while the states are read from a container."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

import msgspec

from bundler.artifacts.image.layer import END, Layer, LayerEntry
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
        self._entries = layer.entries()
        self._stack = stack
        self._early: dict[str, IO[bytes]] = {}
        self._awaited: LayerEntry | None = None
        self._left = 0
        self._advance()

    def taking(self, member: Member, top: str) -> Member:
        """The same member; its bytes are recorded when they are read. top: of its directory."""
        if member.kind != "file" or not member.size or self._awaited is None:
            return member
        path = f"{top}/{member.path}".lstrip("/")
        return msgspec.structs.replace(member, open=partial(self._open, member, path))

    def diff_id(self) -> str | None:
        """The layer's digest; None if not all of its files were read."""
        return None if self._awaited is not None else f"sha256:{self._digest.hexdigest()}"

    def _open(self, member: Member, path: str) -> BinaryIO:
        if self._awaited is not None and self._awaited.path == path:
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
        """Records bytes of the expected file."""
        self._digest.update(data)
        self._left -= len(data)
        if not self._left:
            self._advance()

    def _advance(self) -> None:
        """Moves on to the next file that has not been read; the manifests are known."""
        self._pad()
        for entry in self._entries:
            self._digest.update(entry.header())
            self._awaited = entry
            if entry.content is not None and entry.content.size:
                known = self._early.pop(entry.path, None)
                if known is None and isinstance(entry.content.source, Path):
                    self._left = entry.content.size
                    return
                if known is not None:
                    known.seek(0)
                with known or entry.content.open() as stream:
                    while chunk := stream.read(_CHUNK_BYTES):
                        self._digest.update(chunk)
            self._pad()
        self._digest.update(END)
        self._awaited = None

    def _pad(self) -> None:
        entry = self._awaited
        if entry is not None and entry.content is not None:
            self._digest.update(bytes(entry.padded_size - entry.content.size))
