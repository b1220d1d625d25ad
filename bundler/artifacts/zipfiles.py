"""Zip files, read strictly and written so that what is unchanged is copied byte for byte.

A zip file is a sequence of records (a local header, then an entry's bytes), a directory that lists
them, and an end record that says where the directory lies. Programs may put a prefix before the
first record, as a PEX does with its ``#!`` line.

Python's own `zipfile` reads whatever it can, with as much memory as the file asks for, and cannot
take an entry out. Here everything that is not exactly one plain zip file is refused: no ZIP64 (no
Python before 3.13 can start such a program), no comment, no encryption, no duplicate or unsafe
name, no entry that overlaps another. Entries that are written look as `zipfile` writes them under
pex, dated 1980-01-01, so that the result is the file that pex would have made.
See https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from bundler.errors import ConfigurationError, InputOutputError, VerificationFailed
from bundler.tree import name_problem

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STORED = 0
DEFLATED = 8
_KNOWN_METHODS = (STORED, DEFLATED)

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_MAGIC = b"PK\x03\x04"
_CENTRAL_MAGIC = b"PK\x01\x02"
_END_MAGIC = b"PK\x05\x06"
_ZIP64_LOCATOR_MAGIC = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20

_OFFSET_AT = _CENTRAL.size - 4  # of the local header's offset within a central record
_UTF8 = 0x800
_ENCRYPTED = 0x2041  # plain, strong and hidden-header encryption
_VERSION = 20
_MADE_BY_UNIX = 3 << 8 | _VERSION
_DATE_1980 = 0x21
_FILE_MODE = (stat.S_IFREG | 0o644) << 16
_DIRECTORY_MODE = (stat.S_IFDIR | 0o755) << 16 | 0x10

# Printable ASCII without a backslash, no part of it "." or "..".
_PART = r"(?!\.\.?(?:/|\Z))[ -.0-\[\]-~]{1,255}"
_ORDINARY = re.compile(f"{_PART}(?:/{_PART})*/?")

_MAX_32 = 0xFFFFFFFF
_MAX_16 = 0xFFFF
# A directory of the 65,535 entries that a zip file can have, with names of 1,000 bytes.
_MAX_DIRECTORY_BYTES = 64 * 1024 * 1024
_BUFFER_BYTES = 256 * 1024
_MAX_TEXT_BYTES = 16 * 1024 * 1024


class Entry(NamedTuple):
    """One entry as the directory lists it.

    size, compressed: in bytes. offset: of its local header from the start of the file. end: where
    its record ends at the latest. record: its bytes in the directory.
    """

    name: str
    flags: int
    method: int
    crc: int
    compressed: int
    size: int
    mode: int
    offset: int
    end: int
    record: bytes

    @property
    def is_directory(self) -> bool:
        return self.name.endswith("/")

    @property
    def permissions(self) -> int:
        return self.mode >> 16 & 0o7777

    @property
    def is_file(self) -> bool:
        """Links and devices are neither files nor directories; what made this wrote no type."""
        kind = stat.S_IFMT(self.mode >> 16)
        return not self.is_directory and kind in (0, stat.S_IFREG)


@dataclass(frozen=True)
class ZipFile:
    """A zip file that is open; entries lie in the order of the directory.

    start: where the zip begins in the file (a zip may lie stored inside another). prefix: how many
    bytes come before the first record.
    """

    name: str
    descriptor: int
    entries: tuple[Entry, ...]
    prefix: int
    start: int = 0
    _by_name: dict[str, Entry] = field(default_factory=dict, repr=False, compare=False)

    def get(self, name: str) -> Entry | None:
        return self._by_name.get(name)

    def open(self, entry: Entry) -> BinaryIO:
        """The entry's bytes; reading them to the end raises `VerificationFailed` if they are
        not what the directory says."""
        return io.BufferedReader(_Inflating(self, entry), buffer_size=_BUFFER_BYTES)

    def read(self, entry: Entry, limit: int = _MAX_TEXT_BYTES) -> bytes:
        """The entry's bytes as one piece, `limit` at the most."""
        if entry.size > limit:
            raise self.refuse(f"{entry.name} is larger than {limit} bytes")
        with self.open(entry) as stream:
            return stream.read()

    def read_prefix(self) -> bytes:
        if self.prefix > _MAX_TEXT_BYTES:
            raise self.refuse("what comes before its first entry is too long")
        return self.pread(self.prefix, 0)

    def pread(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self.descriptor, size, self.start + offset)
        except OSError as error:
            raise InputOutputError(f"{self.name} cannot be read: {error.strerror}.") from error

    def data_offset(self, entry: Entry) -> int:
        """Where the entry's own bytes begin, after its local header."""
        header = self.pread(_LOCAL.size, entry.offset)
        if len(header) < _LOCAL.size or not header.startswith(_LOCAL_MAGIC):
            raise self.refuse(f"{entry.name} is not where its directory says")
        name_length, extra_length = _LOCAL.unpack(header)[9:]
        at = entry.offset + _LOCAL.size
        if self.pread(name_length, at) != _raw_name(entry.record):
            raise self.refuse(f"{entry.name} has another name in front of its bytes")
        offset = at + name_length + extra_length
        if offset + entry.compressed > entry.end:
            raise self.refuse(f"{entry.name} overlaps what follows it")
        return int(offset)

    def refuse(self, why: str) -> VerificationFailed:
        return VerificationFailed(f"{self.name} is not a sound zip file: {why}.")


@contextmanager
def opened(path: Path, name: str | None = None) -> Iterator[ZipFile]:
    """Opens a zip file and reads its directory.

    Raises `VerificationFailed` for anything that is not a plain zip file, `InputOutputError` where
    it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputOutputError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        yield read(descriptor, 0, os.fstat(descriptor).st_size, name or str(path))
    finally:
        os.close(descriptor)


def read(descriptor: int, start: int, size: int, name: str) -> ZipFile:
    """Reads the directory of the zip that fills `size` bytes of a file from `start` on."""
    bare = ZipFile(name, descriptor, (), 0, start)
    count, directory_size, directory_offset = _read_end(bare, size)
    directory = bare.pread(directory_size, directory_offset)
    if len(directory) != directory_size:
        raise bare.refuse("it is cut off")
    entries = _with_ends(bare, _parse(bare, directory), directory_offset)
    if len(entries) != count:
        raise bare.refuse("its directory does not have the entries that it announces")
    by_name = {entry.name: entry for entry in entries}
    _check_names(bare, entries, by_name)
    prefix = min((entry.offset for entry in entries), default=directory_offset)
    return ZipFile(name, descriptor, entries, prefix, start, by_name)


def _read_end(file: ZipFile, size: int) -> tuple[int, int, int]:
    """The number of entries, the size and the offset of the directory."""
    end = file.pread(_END.size, size - _END.size) if size >= _END.size else b""
    if not end.startswith(_END_MAGIC) or len(end) != _END.size:
        raise file.refuse("it has no directory at its end, so it is something else or cut off")
    _, disk, first_disk, here, count, directory_size, offset, comment = _END.unpack(end)
    at = size - _END.size - _ZIP64_LOCATOR_BYTES
    if at >= 0 and file.pread(4, at) == _ZIP64_LOCATOR_MAGIC:
        raise file.refuse("it uses ZIP64, which no Python before 3.13 can start")
    if comment or disk or first_disk or here != count:
        raise file.refuse("it has a comment, or is a part of several")
    if offset + directory_size + _END.size != size:
        raise file.refuse("its directory is not where its end says")
    if directory_size > _MAX_DIRECTORY_BYTES:
        raise file.refuse("its directory is too large")
    return count, directory_size, offset


def _parse(file: ZipFile, directory: bytes) -> Iterator[Entry]:
    position = 0
    while position < len(directory):
        if len(directory) - position < _CENTRAL.size:
            raise file.refuse("its directory is cut off")
        fields = _CENTRAL.unpack_from(directory, position)
        magic, _, _, flags, method, _, _, crc, compressed, size = fields[:10]
        name_length, extra_length, comment_length, _, _, mode, offset = fields[10:]
        end = position + _CENTRAL.size + name_length + extra_length + comment_length
        if magic != _CENTRAL_MAGIC or end > len(directory):
            raise file.refuse("its directory is damaged")
        record = directory[position:end]
        raw = record[_CENTRAL.size : _CENTRAL.size + name_length]
        name = _decode(file, raw, flags)
        if flags & _ENCRYPTED or method not in _KNOWN_METHODS:
            raise file.refuse(f"{name} is encrypted or compressed by method {method}")
        if _MAX_32 in (compressed, size, offset):
            raise file.refuse("it uses ZIP64, which no Python before 3.13 can start")
        yield Entry(name, flags, method, crc, compressed, size, mode, offset, 0, record)
        position = end


def _decode(file: ZipFile, raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise file.refuse("a name in it is not UTF-8") from error


def _raw_name(record: bytes) -> bytes:
    length = int.from_bytes(record[28:30], "little")
    return record[_CENTRAL.size : _CENTRAL.size + length]


def _with_ends(file: ZipFile, entries: Iterable[Entry], directory: int) -> tuple[Entry, ...]:
    """Each entry may reach as far as the next one begins, the last to the directory."""
    listed = list(entries)
    ordered = sorted(range(len(listed)), key=lambda index: listed[index].offset)
    end = directory
    for index in reversed(ordered):
        entry = listed[index]
        if entry.offset + _LOCAL.size + entry.compressed > end:
            raise file.refuse(f"{entry.name} overlaps what follows it")
        listed[index] = entry._replace(end=end)
        end = entry.offset
    return tuple(listed)


def _check_names(file: ZipFile, entries: tuple[Entry, ...], by_name: dict[str, Entry]) -> None:
    if len(by_name) != len(entries):
        raise file.refuse("a name stands in it twice")
    for name in by_name:
        problem = _name_problem(name)
        if problem:
            raise file.refuse(f"the name {name!r} {problem}")


def _name_problem(name: str) -> str | None:
    # name_problem looks at every character: too slow for tens of thousands of ordinary names.
    return None if _ORDINARY.fullmatch(name) else name_problem(name.removesuffix("/"))


class _Inflating(io.RawIOBase):
    """An entry's bytes, inflated as they are read, no more of them than the directory says."""

    def __init__(self, file: ZipFile, entry: Entry) -> None:
        super().__init__()
        self._file = file
        self._entry = entry
        self._position = file.data_offset(entry)
        self._packed = entry.compressed
        self._left = entry.size
        self._crc = 0
        self._pending = b""
        self._inflate = zlib.decompressobj(-15) if entry.method == DEFLATED else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        piece = self._next(len(view))
        self._left -= len(piece)
        self._crc = zlib.crc32(piece, self._crc)
        if self._left < 0 or (not piece and not self._is_whole()):
            raise self._file.refuse(f"the bytes of {self._entry.name} are damaged")
        view[: len(piece)] = piece
        return len(piece)

    def _next(self, limit: int) -> bytes:
        if self._inflate is None:
            return self._packed_bytes(min(limit, _BUFFER_BYTES))
        while not self._inflate.eof:
            packed = self._pending or self._packed_bytes(_BUFFER_BYTES)
            try:
                piece = self._inflate.decompress(packed, limit)
            except zlib.error as error:
                raise self._file.refuse(f"{self._entry.name} does not inflate") from error
            self._pending = self._inflate.unconsumed_tail
            if piece or not packed:
                return piece
        return b""

    def _packed_bytes(self, limit: int) -> bytes:
        piece = self._file.pread(min(limit, self._packed), self._position)
        self._position += len(piece)
        self._packed -= len(piece)
        return piece

    def _is_whole(self) -> bool:
        done = self._inflate is None or self._inflate.eof
        return done and not self._left and not self._packed and self._crc == self._entry.crc


class ZipWriter:
    """Writes a zip file from its first byte on; `finish` writes the directory."""

    def __init__(self, stream: BinaryIO, *, compress: bool = True) -> None:
        self._stream = stream
        self._compress = compress
        self._records: list[bytes] = []
        self._offset = 0

    def write_prefix(self, prefix: bytes) -> None:
        self._stream.write(prefix)
        self._offset += len(prefix)

    def copy(self, source: ZipFile, entries: Iterable[Entry]) -> None:
        """Copies entries as they are; neighbours are copied in one go."""
        start = end = -1
        for entry in entries:
            if entry.offset != end:
                self._copy_range(source, start, end)
                start = entry.offset
            self._record(_moved(entry.record, self._offset + entry.offset - start))
            end = entry.end
        self._copy_range(source, start, end)

    def _copy_range(self, source: ZipFile, start: int, end: int) -> None:
        position = start
        while position < end:
            piece = source.pread(min(end - position, 4 * _BUFFER_BYTES), position)
            if not piece:
                raise source.refuse("it is cut off")
            self._stream.write(piece)
            position += len(piece)
        self._offset += max(end - start, 0)

    def write_directory(self, name: str) -> None:
        header = _Header(name, STORED, _DIRECTORY_MODE)
        self._write_record(header, _Packed(0, 0, 0))

    def write_stream(
        self,
        name: str,
        source: BinaryIO,
        *,
        mode: int | None = None,
        compress: bool | None = None,
    ) -> None:
        """Writes a file of any size with flat memory.

        mode: permission bits; 644 by default. compress: None for what the writer was told.
        """
        packs = self._compress if compress is None else compress
        attributes = _FILE_MODE if mode is None else (stat.S_IFREG | mode) << 16
        header = _Header(name, DEFLATED if packs else STORED, attributes)
        at = self._offset
        self._stream.write(header.local(_Packed(0, 0, 0)))
        packed = _pack(source, self._stream, compress=packs)
        self._stream.seek(at)
        self._stream.write(header.local(packed))
        self._stream.seek(0, os.SEEK_END)
        self._offset = self._stream.tell()
        self._record(header.central(packed, at))

    def _write_record(self, header: _Header, packed: _Packed) -> None:
        local = header.local(packed)
        self._stream.write(local)
        self._record(header.central(packed, self._offset))
        self._offset += len(local)

    def _record(self, record: bytes) -> None:
        self._records.append(record)

    def finish(self) -> None:
        """Writes the directory. Raises `ConfigurationError` where ZIP64 would be needed."""
        directory = b"".join(self._records)
        count = len(self._records)
        if count >= _MAX_16 or self._offset >= _MAX_32:
            raise _too_large()
        self._stream.write(directory)
        self._stream.write(
            _END.pack(_END_MAGIC, 0, 0, count, count, len(directory), self._offset, 0)
        )


class _Packed(NamedTuple):
    crc: int
    compressed: int
    size: int


@dataclass(frozen=True)
class _Header:
    name: str
    method: int
    mode: int

    def _common(self, packed: _Packed) -> tuple[bytes, tuple[int, ...]]:
        raw = self.name.encode()
        flags = 0 if self.name.isascii() else _UTF8
        return raw, (_VERSION, flags, self.method, 0, _DATE_1980, *packed, len(raw), 0)

    def local(self, packed: _Packed) -> bytes:
        raw, fields = self._common(packed)
        return _LOCAL.pack(_LOCAL_MAGIC, *fields) + raw

    def central(self, packed: _Packed, offset: int) -> bytes:
        raw, fields = self._common(packed)
        if offset >= _MAX_32:
            raise _too_large()
        tail = (0, 0, 0, self.mode, offset)
        return _CENTRAL.pack(_CENTRAL_MAGIC, _MADE_BY_UNIX, *fields, *tail) + raw


def _pack(source: BinaryIO, target: BinaryIO, *, compress: bool) -> _Packed:
    deflate = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -15)
    crc = size = compressed = 0
    while piece := source.read(_BUFFER_BYTES):
        crc = zlib.crc32(piece, crc)
        size += len(piece)
        compressed += target.write(deflate.compress(piece) if compress else piece)
    if compress:
        compressed += target.write(deflate.flush())
    if max(size, compressed) >= _MAX_32:
        raise _too_large()
    return _Packed(crc, compressed, size)


def _moved(record: bytes, offset: int) -> bytes:
    if offset >= _MAX_32:
        raise _too_large()
    return record[:_OFFSET_AT] + offset.to_bytes(4, "little") + record[_OFFSET_AT + 4 :]


def _too_large() -> ConfigurationError:
    return ConfigurationError(
        "With this state the file would be larger than 4 GiB or have more than 65,534 entries, "
        "and Python before 3.13 cannot start such a zip file.",
        hint="Build with `--layout packed` or `--layout loose`.",
    )
