"""Writes zip files; unchanged entries are copied byte for byte.

Entries look as `zipfile` writes them under pex, dated 1980-01-01, so that the result is the file
that pex would have made. Files of many megabytes are an exception: they are deflated on all cores
and with less effort (`image.deflating`), because a state of a gigabyte would take a minute
otherwise. The bytes do not depend on the machine: the same inputs give the same file.
"""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

import msgspec

from bundler.artifacts.image.deflating import Deflate
from bundler.artifacts.python.zipfiles import (
    BUFFER_BYTES,
    CENTRAL,
    CENTRAL_MAGIC,
    DEFLATED,
    END,
    END_MAGIC,
    LOCAL,
    LOCAL_MAGIC,
    MAX_32,
    OFFSET_AT,
    STORED,
    UTF8,
    ZipEntry,
    ZipFile,
)
from bundler.errors import ConfigurationError

_VERSION = 20
_MADE_BY_UNIX = 3 << 8 | _VERSION
_DATE_1980 = 0x21
_FILE_MODE = (stat.S_IFREG | 0o644) << 16
_DIRECTORY_MODE = (stat.S_IFDIR | 0o755) << 16 | 0x10
_MAX_16 = 0xFFFF

_LARGE_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024


class ZipWriter:
    """Writes a zip file from its first byte on; `finish` writes the directory."""

    def __init__(self, stream: BinaryIO, *, compress: bool = True) -> None:
        self._stream = stream
        self._compress = compress
        self._records: list[bytes] = []
        self._count = 0
        self._offset = 0

    def write_prefix(self, prefix: bytes) -> None:
        self._stream.write(prefix)
        self._offset += len(prefix)

    def copy_head(self, source: ZipFile, count: int) -> None:
        """Copies the first entries of a file that is in order, after a prefix as long as its."""
        records, end = source.head(count)
        self._copy_range(source, source.prefix, end)
        self._records.append(records)
        self._count += count

    def copy(self, source: ZipFile, entries: Iterable[ZipEntry]) -> None:
        """Copies entries unchanged; adjacent ones are copied together."""
        start = end = -1
        for entry in entries:
            if entry.offset != end:
                self._copy_range(source, start, end)
                start = entry.offset
            at = self._offset + entry.offset - start
            self._record(entry.record if at == entry.offset else _moved(entry.record, at))
            end = source.end(entry)
        self._copy_range(source, start, end)

    def _copy_range(self, source: ZipFile, start: int, end: int) -> None:
        position = self._copied_by_kernel(source, start, end)
        while position < end:
            piece = source.pread(min(end - position, 4 * BUFFER_BYTES), position)
            if not piece:
                raise source.refuse("it is truncated")
            self._stream.write(piece)
            position += len(piece)
        self._offset += max(end - start, 0)

    def _copied_by_kernel(self, source: ZipFile, start: int, end: int) -> int:
        """How far the kernel copied by itself, which is fast and, on some file systems, free."""
        position = start
        with suppress(OSError, AttributeError, io.UnsupportedOperation):
            self._stream.flush()
            target = self._stream.fileno()
            while position < end:
                at = self._offset + position - start
                count = os.copy_file_range(
                    source.descriptor, target, end - position, source.start + position, at
                )
                if not count:
                    break
                position += count
        if position > start:
            self._stream.seek(self._offset + position - start)
        return position

    def write_directory(self, name: str) -> None:
        header, nothing = _Header(name, STORED, _DIRECTORY_MODE), _Packed(0, 0, 0)
        self._record(header.central(nothing, self._offset))
        self._offset += self._stream.write(header.local(nothing))

    def write_stream(
        self,
        name: str,
        source: BinaryIO,
        *,
        mode: int | None = None,
        compress: bool | None = None,
        size: int = 0,
    ) -> None:
        """Writes a file of any size in constant memory.

        mode: permission bits; 644 by default. compress: None for the writer's default. size: of the
        source in bytes, if it is known to be large.
        """
        packs = self._compress if compress is None else compress
        attributes = _FILE_MODE if mode is None else (stat.S_IFREG | mode) << 16
        header = _Header(name, DEFLATED if packs else STORED, attributes)
        at = self._offset
        self._stream.write(header.local(_Packed(0, 0, 0)))
        packed = _pack(source, self._stream, compress=packs, size=size)
        self._stream.seek(at)
        self._stream.write(header.local(packed))
        self._stream.seek(0, os.SEEK_END)
        self._offset = self._stream.tell()
        self._record(header.central(packed, at))

    def _record(self, record: bytes) -> None:
        self._records.append(record)
        self._count += 1

    def finish(self) -> None:
        """Writes the directory. Raises `ConfigurationError` if ZIP64 would be needed."""
        directory = b"".join(self._records)
        count = self._count
        if count >= _MAX_16 or self._offset >= MAX_32:
            raise _too_large()
        self._stream.write(directory)
        self._stream.write(END.pack(END_MAGIC, 0, 0, count, count, len(directory), self._offset, 0))


class _Packed(NamedTuple):
    crc: int
    compressed: int
    size: int


class _Header(msgspec.Struct, frozen=True):
    name: str
    method: int
    mode: int

    def _common(self, packed: _Packed) -> tuple[bytes, tuple[int, ...]]:
        raw = self.name.encode()
        flags = 0 if self.name.isascii() else UTF8
        return raw, (_VERSION, flags, self.method, 0, _DATE_1980, *packed, len(raw), 0)

    def local(self, packed: _Packed) -> bytes:
        raw, fields = self._common(packed)
        return LOCAL.pack(LOCAL_MAGIC, *fields) + raw

    def central(self, packed: _Packed, offset: int) -> bytes:
        raw, fields = self._common(packed)
        if offset >= MAX_32:
            raise _too_large()
        tail = (0, 0, 0, self.mode, offset)
        return CENTRAL.pack(CENTRAL_MAGIC, _MADE_BY_UNIX, *fields, *tail) + raw


def _pack(source: BinaryIO, target: BinaryIO, *, compress: bool, size: int) -> _Packed:
    if size >= _LARGE_BYTES:
        deflate: Any = Deflate()
    else:
        deflate = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -zlib.MAX_WBITS)
    crc = taken = packed = 0
    while piece := source.read(_PIECE_BYTES):
        crc = zlib.crc32(piece, crc)
        taken += len(piece)
        packed += target.write(deflate.compress(piece) if compress else piece)
    if compress:
        packed += target.write(deflate.flush())
    if max(taken, packed) >= MAX_32:
        raise _too_large()
    return _Packed(crc, packed, taken)


def _moved(record: bytes, offset: int) -> bytes:
    if offset >= MAX_32:
        raise _too_large()
    return record[:OFFSET_AT] + offset.to_bytes(4, "little") + record[OFFSET_AT + 4 :]


def _too_large() -> ConfigurationError:
    return ConfigurationError(
        "With this state, the file would be larger than 4 GiB or have more than 65,534 entries; "
        "Python before 3.13 cannot start such a zip file.",
        hint="Build with `--layout packed` or `--layout loose`.",
    )
