"""Sends images to an engine, and parses its report."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from bundler.artifacts.image.engine.connection import Engine
from bundler.artifacts.image.layer import Layer, Written
from bundler.errors import ToolFailed

_PIECE_BYTES = 1024 * 1024


def archive_of(layer: Layer, below: int, finish: Callable[[Written], bytes]) -> Iterator[bytes]:
    """A docker archive in pieces: the new layer, the configuration, the list.

    below: the number of layers that the engine has already; they are named and missing. finish:
    makes the configuration once the layer's digest is known.
    """
    size = layer.size()
    written: list[Written] = []
    yield _header("layer.tar", size)
    yield from layer.packed("none", written.append)
    yield _padding(size)
    config = finish(written[0])
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    absent = [f"absent-{number}/layer.tar" for number in range(below)]
    listing = [{"Config": name, "RepoTags": None, "Layers": [*absent, "layer.tar"]}]
    for member, data in ((name, config), ("manifest.json", msgspec.json.encode(listing))):
        yield _header(member, len(data)) + data + _padding(len(data))
    yield b"\0" * 1024


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % 512)


def load(engine: Engine, archive: Iterator[bytes]) -> None:
    """Sends an image archive and parses the report: the engine reports errors with a status of
    200."""
    for line in engine.load(_joined(archive)).splitlines():
        with suppress(msgspec.DecodeError):
            event = msgspec.json.decode(line)
            problem = event.get("error") or event.get("stream", "")
            if event.get("error") or "rror unpacking" in problem:
                raise ToolFailed(f"The Docker engine rejected the image: {str(problem).strip()}.")


def _joined(archive: Iterator[bytes]) -> Iterator[bytes]:
    """Joins small pieces: each piece is a chunk of HTTP."""
    buffer = io.BytesIO()
    for piece in archive:
        buffer.write(piece)
        if buffer.tell() >= _PIECE_BYTES:
            yield buffer.getvalue()
            buffer = io.BytesIO()
    if buffer.tell():
        yield buffer.getvalue()
