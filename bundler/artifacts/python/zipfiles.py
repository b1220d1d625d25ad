"""Zip files, read strictly.

A zip file is a sequence of records (a local header, then an entry's bytes), a directory that lists
them, and an end record that says where the directory is. Programs may put a prefix before the
first record, as a PEX does with its ``#!`` line.

Python's own `zipfile` reads whatever it can, with as much memory as the file asks for, and cannot
take an entry out. Here everything that is not exactly one plain zip file is refused: no ZIP64 (no
Python before 3.13 can start such a program), no comment, no encryption, no duplicate or unsafe
name, no second name of an entry, no file that is a folder too, no entry that overlaps another or
whose local header says something else than the directory. `bundler.artifacts.python.zipwriter`
writes them.
See https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import struct
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from bundler.errors import VerificationFailed, unreadable
from bundler.state.tree import name_problem

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STORED = 0
DEFLATED = 8
_KNOWN_METHODS = (STORED, DEFLATED)

LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s6H3L5H2L")
END = struct.Struct("<4s4H2LH")
LOCAL_MAGIC = b"PK\x03\x04"
CENTRAL_MAGIC = b"PK\x01\x02"
END_MAGIC = b"PK\x05\x06"
_ZIP64_LOCATOR_MAGIC = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20

# Of a central record: magic, version needed, flags and method together, compressed size, lengths of
# name, extra field and comment, disk, offset of the local header.
_OUTLINE = struct.Struct("<4s2xHL8xL4x4H6xL")
_LENGTHS_AT = 28
OFFSET_AT = CENTRAL.size - 4
UTF8 = 0x800
_DESCRIPTOR = 0x8
# And bits for the compression level. Any other bit means encryption, a patch, or something new.
_KNOWN_FLAGS = UTF8 | _DESCRIPTOR | 0x6
_NEWEST_VERSION = 63  # what zipfile knows
_DESCRIPTOR_MAGIC = b"PK\x07\x08"
_MAX_DESCRIPTOR_BYTES = 16
# Extra fields that change the meaning of an entry: ZIP64, encryption, another name (which Python
# 3.12 and later use), strong encryption by WinZip.
_FORBIDDEN_EXTRAS = frozenset({0x0001, 0x0014, 0x0017, 0x7075, 0x9901})

# Searched for in all names together, which begin with a slash here and end with a newline: the
# characters of ordinary names, and parts that are empty or lead elsewhere.
_ORDINARY = bytes(set(range(0x20, 0x7F)) - set(b"\\"))
_UNUSUAL = re.compile(rb"/(?:\.{0,2}/|\.{1,2}\n)")
_LONG_NAME = 256

MAX_32 = 0xFFFFFFFF
# A directory of the 65,535 entries that a zip file can have, with names of 1,000 bytes.
_MAX_DIRECTORY_BYTES = 64 * 1024 * 1024
BUFFER_BYTES = 256 * 1024
_MAX_TEXT_BYTES = 16 * 1024 * 1024


class ZipEntry(NamedTuple):
    """An entry as the directory lists it.

    size, compressed: in bytes. offset: of its local header from the start of the file. record: its
    bytes in the directory.
    """

    name: str
    flags: int
    method: int
    crc: int
    compressed: int
    size: int
    mode: int
    offset: int
    record: bytes

    @property
    def is_directory(self) -> bool:
        return self.name.endswith("/")

    @property
    def permissions(self) -> int:
        return self.mode >> 16 & 0o7777

    @property
    def is_file(self) -> bool:
        """Links and devices are neither files nor directories; some writers record no type."""
        kind = stat.S_IFMT(self.mode >> 16)
        return not self.is_directory and kind in (0, stat.S_IFREG)


class Head(NamedTuple):
    """The first entries of a zip file, as one piece.

    records: their part of the directory. end: where the last one's record ends; the first one's
    begins where the prefix ends.
    """

    records: bytes
    end: int


class _Directory(NamedTuple):
    """Its bytes, their offset, and the number of entries that the end record announces."""

    raw: bytes
    offset: int
    announced: int


class ZipFile:
    """An open zip file.

    name: for messages. descriptor: of the file. start: where the zip begins in it (a zip may be
    stored inside another). prefix: how many bytes precede the first record. The directory is parsed
    on demand: its names immediately, an entry when it is opened, everything when the file is
    rewritten.
    """

    def __init__(self, name: str, descriptor: int, start: int, directory: _Directory) -> None:
        self.name = name
        self.descriptor = descriptor
        self.start = start
        self._directory = directory
        self._records = _Records([], [], [], [], set())
        self._is_apart = False

    def read_names(self, like: ZipFile | None = None) -> None:
        """Raises `VerificationFailed` for a directory that is damaged, or an unsafe name.

        like: a file whose directory may begin with the same bytes, which are then not parsed again.
        """
        raw = self._directory.raw
        start = 0
        if like is not None:
            self._records, start = like.shared_records(raw)
        names, positions, offsets, packed, kinds = self._records
        known = len(names)
        raws = _split(self, raw, self._records, start)
        names += _decode_all(self, raws, positions[known:], raw)
        if len(names) != self._directory.announced:
            raise self.refuse("its directory does not have the number of entries that it announces")
        if len(self._positions) != len(names):
            raise self.refuse("it lists a name twice")
        for kind in kinds:
            method = kind >> 16
            if kind & 0xFFFF & ~_KNOWN_FLAGS or method not in _KNOWN_METHODS:
                raise self.refuse(f"an entry is encrypted or compressed by method {method}")
        if MAX_32 in packed or MAX_32 in offsets:
            raise self.refuse("it uses ZIP64, which no Python before 3.13 can start")
        self._refuse_files_as_folders()

    def _refuse_files_as_folders(self) -> None:
        folders = {name.rpartition("/")[0] for name in self._positions}
        for folder in list(folders):
            parent = folder.rpartition("/")[0]
            while parent and parent not in folders:
                folders.add(parent)
                parent = parent.rpartition("/")[0]
        both = folders & self._positions.keys()
        if both:
            raise self.refuse(f"{min(both)} is both a file and a folder")

    def shared_records(self, raw: bytes) -> tuple[_Records, int]:
        """The records with which another directory begins as well, and where they end."""
        ours = self._directory.raw
        ends = [*self._records.positions, len(ours)]
        fewest, most = 0, len(ends) - 1
        while fewest < most:
            middle = (fewest + most + 1) // 2
            if raw.startswith(ours[ends[fewest] : ends[middle]], ends[fewest]):
                fewest = middle
            else:
                most = middle - 1
        names, positions, offsets, packed, kinds = self._records
        first = names[:fewest], positions[:fewest], offsets[:fewest], packed[:fewest]
        return _Records(*first, set(kinds)), ends[fewest]

    @cached_property
    def _positions(self) -> Mapping[str, int]:
        return dict(zip(self._records.names, self._records.positions, strict=True))

    @property
    def names(self) -> Collection[str]:
        """In the order of the directory; those of folders end with a slash."""
        return self._positions.keys()

    def __contains__(self, name: str) -> bool:
        return name in self._positions

    def get(self, name: str) -> ZipEntry | None:
        position = self._positions.get(name)
        return None if position is None else _entry(self, self._directory.raw, name, position)

    @property
    def entries(self) -> tuple[ZipEntry, ...]:
        """All entries, in the order of the directory."""
        return self.entries_from(0)

    def entries_from(self, start: int) -> tuple[ZipEntry, ...]:
        """The entries from this one on. Raises `VerificationFailed` if any two overlap."""
        raw = self._directory.raw
        wanted = islice(self._positions.items(), start, None)
        entries = tuple(_entry(self, raw, name, at) for name, at in wanted)
        self._require_apart()
        return entries

    def head(self, count: int) -> Head | None:
        """The first entries as one piece, without inspecting each of possibly tens of thousands.

        None if their records are not in the order of the directory. Raises `VerificationFailed` as
        `entries_from` does.
        """
        records = self._records
        if records.offsets[:count] != self.offsets[:count]:
            return None
        self._require_apart()
        raw = self._directory.raw
        end = len(raw) if count == len(records.names) else records.positions[count]
        return Head(raw[:end], self.offsets[count])

    def _require_apart(self) -> None:
        """Raises `VerificationFailed` if an entry overlaps the next one."""
        if self._is_apart:
            return
        spans = sorted(zip(self._records.offsets, self._records.packed, self.names, strict=True))
        for (offset, packed, name), end in zip(spans, self.offsets[1:], strict=True):
            if offset + LOCAL.size + packed > end:
                raise self.refuse(f"{name} overlaps what follows it")
        self._is_apart = True

    @cached_property
    def offsets(self) -> list[int]:
        """Where the records begin, ascending, then the directory."""
        return [*sorted(self._records.offsets), self._directory.offset]

    @property
    def prefix(self) -> int:
        return self.offsets[0]

    def end(self, entry: ZipEntry) -> int:
        """The latest end of the entry's record: where the next one begins."""
        return self.offsets[min(bisect_right(self.offsets, entry.offset), len(self.offsets) - 1)]

    def open(self, entry: ZipEntry) -> BinaryIO:
        """The entry's bytes; reading them to the end raises `VerificationFailed` if they do not
        match the directory."""
        return io.BufferedReader(_Inflating(self, entry), buffer_size=BUFFER_BYTES)

    def read(self, entry: ZipEntry, limit: int = _MAX_TEXT_BYTES) -> bytes:
        """The entry's bytes as one piece, at most `limit`."""
        if entry.size > limit:
            raise self.refuse(f"{entry.name} is larger than {limit} bytes")
        with self.open(entry) as stream:
            return stream.read()

    def read_prefix(self) -> bytes:
        if self.prefix > _MAX_TEXT_BYTES:
            raise self.refuse("the data before its first entry is too long")
        return self.pread(self.prefix, 0)

    def pread(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self.descriptor, size, self.start + offset)
        except OSError as error:
            raise unreadable(self.name, error) from error

    def data_offset(self, entry: ZipEntry) -> int:
        """Where the entry's own bytes begin, after its local header.

        Raises `VerificationFailed` if that header contradicts the directory.
        """
        name = _raw_name(entry.record)
        header = self.pread(LOCAL.size + len(name), entry.offset)
        if len(header) < LOCAL.size or not header.startswith(LOCAL_MAGIC):
            raise self.refuse(f"{entry.name} is not where its directory says")
        fields = LOCAL.unpack_from(header)
        flags, method, sizes, (name_length, extra_length) = (
            fields[2],
            fields[3],
            fields[6:9],
            fields[9:],
        )
        if name_length != len(name) or header[LOCAL.size :] != name:
            raise self.refuse(f"{entry.name} has another name in its local header")
        expected = (entry.crc, entry.compressed, entry.size)
        later = flags & _DESCRIPTOR and sizes == (0, 0, 0)
        if (flags, method) != (entry.flags, entry.method) or not (later or sizes == expected):
            raise self.refuse(f"{entry.name} is described differently in its local header")
        at = entry.offset + LOCAL.size + name_length
        if extra_length:
            _check_extra(self, self.pread(extra_length, at))
        offset = at + extra_length
        if offset + entry.compressed > self.end(entry):
            raise self.refuse(f"{entry.name} overlaps what follows it")
        return int(offset)

    def require_seamless(self) -> None:
        """Raises `VerificationFailed` if a reader that starts at the first byte, without using a
        directory, would find other entries."""
        if self.offsets[0] != 0:
            raise self.refuse("there is data before the first entry")
        for entry in self.entries:
            end = self.data_offset(entry) + entry.compressed
            rest = self.pread(min(self.end(entry) - end, _MAX_DESCRIPTOR_BYTES + 1), end)
            sizes = struct.pack("<3L", entry.crc, entry.compressed, entry.size)
            expected = sizes if entry.flags & _DESCRIPTOR else b""
            if rest not in (expected, _DESCRIPTOR_MAGIC + expected if expected else b""):
                raise self.refuse(f"there is data between {entry.name} and what follows it")

    def sha256(self) -> str:
        """The sha256 of the whole zip file."""
        digest = hashlib.sha256()
        size = self._directory.offset + len(self._directory.raw) + END.size
        for position in range(0, size, BUFFER_BYTES):
            digest.update(self.pread(min(BUFFER_BYTES, size - position), position))
        return digest.hexdigest()

    def refuse(self, why: str) -> VerificationFailed:
        return VerificationFailed(f"{self.name} is not a valid zip file: {why}.")


@contextmanager
def opened(path: Path, name: str | None = None, like: ZipFile | None = None) -> Iterator[ZipFile]:
    """Opens a zip file and reads its directory.

    like: an open one with the same beginning: this then takes a tenth of the time. Raises
    `VerificationFailed` for anything that is not a plain zip file, `InputOutputError` if it cannot
    be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        yield read(descriptor, 0, os.fstat(descriptor).st_size, name or str(path), like)
    finally:
        os.close(descriptor)


def read(descriptor: int, start: int, size: int, name: str, like: ZipFile | None = None) -> ZipFile:
    """Reads the directory of the zip that occupies `size` bytes of a file from `start` on."""
    bare = ZipFile(name, descriptor, start, _Directory(b"", 0, 0))
    count, directory_size, offset = _read_end(bare, size)
    raw = bare.pread(directory_size, offset)
    if len(raw) != directory_size:
        raise bare.refuse("it is truncated")
    file = ZipFile(name, descriptor, start, _Directory(raw, offset, count))
    file.read_names(like)
    return file


def _read_end(file: ZipFile, size: int) -> tuple[int, int, int]:
    """The number of entries, the size and the offset of the directory."""
    end = file.pread(END.size, size - END.size) if size >= END.size else b""
    if not end.startswith(END_MAGIC) or len(end) != END.size:
        raise file.refuse("it has no directory at its end, so it is another format or truncated")
    _, disk, first_disk, here, count, directory_size, offset, comment = END.unpack(end)
    at = size - END.size - _ZIP64_LOCATOR_BYTES
    if at >= 0 and file.pread(4, at) == _ZIP64_LOCATOR_MAGIC:
        raise file.refuse("it uses ZIP64, which no Python before 3.13 can start")
    if comment or disk or first_disk or here != count:
        raise file.refuse("it has a comment, or is part of a multi-disk archive")
    if offset + directory_size + END.size != size:
        raise file.refuse("its directory is not where its end record says")
    if directory_size > _MAX_DIRECTORY_BYTES:
        raise file.refuse("its directory is too large")
    return count, directory_size, offset


class _Records(NamedTuple):
    """Of each record in the directory: its name, its offset, that of the entry's local header, and
    its compressed size. kinds: the flags and methods that occur."""

    names: list[str]
    positions: list[int]
    offsets: list[int]
    packed: list[int]
    kinds: set[int]


def _split(file: ZipFile, directory: bytes, records: _Records, position: int) -> list[bytes]:
    """Parses the records from an offset on, and returns their names. Tens of thousands of
    iterations: only what is necessary."""
    raws: list[bytes] = []
    _, positions, offsets, sizes, kinds = records
    unpack, fixed, total = _OUTLINE.unpack_from, CENTRAL.size, len(directory)
    while position + fixed <= total:
        fields = unpack(directory, position)
        magic, version, kind, packed, name_length, extra_length, comment_length, disk, offset = (
            fields
        )
        if magic != CENTRAL_MAGIC or version > _NEWEST_VERSION or disk:
            raise file.refuse("its directory is damaged")
        positions.append(position)
        offsets.append(offset)
        sizes.append(packed)
        kinds.add(kind)
        position += fixed
        raws.append(directory[position : position + name_length])
        position += name_length
        if extra_length:
            _check_extra(file, directory[position : position + extra_length])
        position += extra_length + comment_length
    if position != total:
        raise file.refuse("its directory is damaged")
    return raws


def _check_extra(file: ZipFile, extra: bytes) -> None:
    """Refuses an extra field that is damaged, or that changes the meaning of its entry."""
    while extra:
        kind, length = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if len(extra) < 4 + length or kind in _FORBIDDEN_EXTRAS:
            raise file.refuse(
                f"the extra field {kind:#06x} of an entry can give it another meaning"
            )
        extra = extra[4 + length :]


def _are_ordinary(raws: Sequence[bytes]) -> bool:
    """Whether all names consist of plain characters, are short, and do not lead elsewhere."""
    lines = b"/%b\n" % b"\n/".join(raws)
    lengths = set(map(len, raws))
    return (
        lines.translate(None, _ORDINARY) == b"\n" * len(raws)
        and _UNUSUAL.search(lines) is None
        and min(lengths) > 0
        and max(lengths) < _LONG_NAME
    )


def _decode_all(
    file: ZipFile, raws: Sequence[bytes], positions: Sequence[int], directory: bytes
) -> list[str]:
    # name_problem inspects every character: too slow for tens of thousands of names.
    if raws and _are_ordinary(raws):
        return b"\n".join(raws).decode().split("\n")
    flags = (int.from_bytes(directory[at + 8 : at + 10], "little") for at in positions)
    names = [_decode(file, raw, flag) for raw, flag in zip(raws, flags, strict=True)]
    for name in names:
        problem = name_problem(name.removesuffix("/"))
        if problem:
            raise file.refuse(f"the name {name!r} {problem}")
    return names


def _entry(file: ZipFile, directory: bytes, name: str, position: int) -> ZipEntry:
    fields = CENTRAL.unpack_from(directory, position)
    flags, method, crc, compressed, size = fields[3], fields[4], *fields[7:10]
    mode, offset = fields[15:]
    if MAX_32 in (compressed, size, offset):
        raise file.refuse("it uses ZIP64, which no Python before 3.13 can start")
    end = position + CENTRAL.size + sum(fields[10:13])
    record = directory[position:end]
    return ZipEntry(name, flags, method, crc, compressed, size, mode, offset, record)


def _decode(file: ZipFile, raw: bytes, flags: int) -> str:
    try:
        # Without the UTF-8 flag, each reader decodes in its own way.
        return raw.decode("utf-8" if flags & UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise file.refuse("it contains a name that is not UTF-8 or not marked as such") from error


def _raw_name(record: bytes) -> bytes:
    length = int.from_bytes(record[_LENGTHS_AT : _LENGTHS_AT + 2], "little")
    return record[CENTRAL.size : CENTRAL.size + length]


class _Inflating(io.RawIOBase):
    """An entry's bytes, decompressed as they are read, at most as many as the directory says."""

    def __init__(self, file: ZipFile, entry: ZipEntry) -> None:
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
            return self._packed_bytes(min(limit, BUFFER_BYTES))
        while not self._inflate.eof:
            packed = self._pending or self._packed_bytes(BUFFER_BYTES)
            try:
                piece = self._inflate.decompress(packed, limit)
            except zlib.error as error:
                raise self._file.refuse(f"{self._entry.name} cannot be decompressed") from error
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
