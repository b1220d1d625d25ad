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
import os
import re
import stat
import struct
import zlib
from bisect import bisect_right
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bundler.errors import VerificationFailed
from bundler.state.tree import name_problem
from bundler.system.readable import stream_of
from bundler.system.reading import reading

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
_FLAGS_AT = 8
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
_ZIP64 = "it uses ZIP64, which no Python before 3.13 can start"
# A directory of the 65,535 entries that a zip file can have, with names of 1,000 bytes.
_MAX_DIRECTORY_BYTES = 64 * 1024 * 1024
BUFFER_BYTES = 256 * 1024
_MAX_PREFIX_BYTES = 16 * 1024 * 1024


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


# Of each record in the directory: its position there, the offset of the entry's local header, and
# the entry's compressed size.
_Record = tuple[int, int, int]


class ZipFile:
    """An open zip file.

    name: for messages. descriptor: of the file. start, size: the bytes in it that are the zip,
    which may be stored inside another. prefix: how many bytes precede the first record. The
    directory is parsed on demand: its names immediately, an entry when it is opened, everything
    when the file is rewritten.
    """

    def __init__(self, name: str, descriptor: int, start: int, size: int) -> None:
        """Raises `VerificationFailed` for a directory that is damaged, or an unsafe name."""
        self.name = name
        self.descriptor = descriptor
        self.start = start
        count, length, self._directory_offset = self._read_end(size)
        self._directory = self.pread(length, self._directory_offset)
        if len(self._directory) != length:
            raise self.refuse("it is truncated")
        self._records = self._read_records(count)
        self._refuse_files_as_folders()

    def _read_end(self, size: int) -> tuple[int, int, int]:
        """The number of entries, the size and the offset of the directory."""
        end = self.pread(END.size, size - END.size) if size >= END.size else b""
        if not end.startswith(END_MAGIC) or len(end) != END.size:
            raise self.refuse(
                "it has no directory at its end, so it is another format or truncated"
            )
        _, disk, first_disk, here, count, directory_size, offset, comment = END.unpack(end)
        at = size - END.size - _ZIP64_LOCATOR_BYTES
        if at >= 0 and self.pread(4, at) == _ZIP64_LOCATOR_MAGIC:
            raise self.refuse(_ZIP64)
        if comment or disk or first_disk or here != count:
            raise self.refuse("it has a comment, or is part of a multi-disk archive")
        if offset + directory_size + END.size != size:
            raise self.refuse("its directory is not where its end record says")
        if directory_size > _MAX_DIRECTORY_BYTES:
            raise self.refuse("its directory is too large")
        return count, directory_size, offset

    def _read_records(self, announced: int) -> dict[str, _Record]:
        """Parses the directory."""
        records: list[_Record] = []
        names = self._decode_all(_split(self, self._directory, records), records)
        if len(names) != announced:
            raise self.refuse("its directory does not have the number of entries that it announces")
        found = dict(zip(names, records, strict=True))
        if len(found) != announced:
            raise self.refuse("it lists a name twice")
        return found

    def _decode_all(self, raws: Sequence[bytes], records: Sequence[_Record]) -> list[str]:
        # name_problem inspects every character: too slow for tens of thousands of names.
        if raws and _are_ordinary(raws):
            return b"\n".join(raws).decode().split("\n")
        flags = (self._directory[at + _FLAGS_AT : at + _FLAGS_AT + 2] for at, _, _ in records)
        names = [_decode(self, raw, flag) for raw, flag in zip(raws, flags, strict=True)]
        for name in names:
            if problem := name_problem(name.removesuffix("/")):
                raise self.refuse(f"the name {name!r} {problem}")
        return names

    def _refuse_files_as_folders(self) -> None:
        folders = {name.rpartition("/")[0] for name in self._records}
        for folder in list(folders):
            parent = folder.rpartition("/")[0]
            while parent and parent not in folders:
                folders.add(parent)
                parent = parent.rpartition("/")[0]
        if both := folders & self._records.keys():
            raise self.refuse(f"{min(both)} is both a file and a folder")

    @property
    def names(self) -> Collection[str]:
        """In the order of the directory; those of folders end with a slash."""
        return self._records.keys()

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def get(self, name: str) -> ZipEntry | None:
        record = self._records.get(name)
        return None if record is None else _entry(self, self._directory, name, record[0])

    @property
    def entries(self) -> tuple[ZipEntry, ...]:
        """All entries, in the order of the directory."""
        return self.entries_from(0)

    def entries_from(self, start: int) -> tuple[ZipEntry, ...]:
        """The entries from this one on. Raises `VerificationFailed` if any two overlap."""
        spans = sorted(
            (offset, packed, name) for name, (_, offset, packed) in self._records.items()
        )
        for (offset, packed, name), end in zip(spans, self.offsets[1:], strict=True):
            if offset + LOCAL.size + packed > end:
                raise self.refuse(f"{name} overlaps what follows it")
        wanted = islice(self._records.items(), start, None)
        return tuple(_entry(self, self._directory, name, at) for name, (at, _, _) in wanted)

    @property
    def is_in_order(self) -> bool:
        """Whether the directory lists the entries in the order in which they are in the file."""
        return [offset for _, offset, _ in self._records.values()] == self.offsets[:-1]

    def head(self, count: int) -> tuple[bytes, int]:
        """The first entries of a file that is in order: their part of the directory, and where the
        last one ends. None of possibly tens of thousands is inspected."""
        records = islice(self._records.values(), count, None)
        end, _, _ = next(records, (len(self._directory), 0, 0))
        return self._directory[:end], self.offsets[count]

    @cached_property
    def offsets(self) -> list[int]:
        """Where the records begin, ascending, then the directory."""
        return [*sorted(offset for _, offset, _ in self._records.values()), self._directory_offset]

    @property
    def prefix(self) -> int:
        return self.offsets[0]

    def end(self, entry: ZipEntry) -> int:
        """The latest end of the entry's record: where the next one begins."""
        return self.offsets[min(bisect_right(self.offsets, entry.offset), len(self.offsets) - 1)]

    def open(self, entry: ZipEntry) -> BinaryIO:
        """The entry's bytes; reading them to the end raises `VerificationFailed` if they do not
        match the directory."""
        return stream_of(_contents(self, entry, self.data_offset(entry)))

    def read_prefix(self) -> bytes:
        if self.prefix > _MAX_PREFIX_BYTES:
            raise self.refuse("the data before its first entry is too long")
        return self.pread(self.prefix, 0)

    def pread(self, size: int, offset: int) -> bytes:
        with reading(self.name):
            return os.pread(self.descriptor, size, self.start + offset)

    def data_offset(self, entry: ZipEntry) -> int:
        """Where the entry's own bytes begin, after its local header.

        Raises `VerificationFailed` if that header contradicts the directory.
        """
        name = _raw_name(entry.record)
        header = self.pread(LOCAL.size + len(name), entry.offset)
        if len(header) < LOCAL.size or not header.startswith(LOCAL_MAGIC):
            raise self.refuse(f"{entry.name} is not where its directory says")
        fields = LOCAL.unpack_from(header)
        flags, method, sizes, (name_length, extra_length) = *fields[2:4], fields[6:9], fields[9:]
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
        size = self._directory_offset + len(self._directory) + END.size
        for position in range(0, size, BUFFER_BYTES):
            digest.update(self.pread(min(BUFFER_BYTES, size - position), position))
        return digest.hexdigest()

    def refuse(self, why: str) -> VerificationFailed:
        return VerificationFailed(f"{self.name} is not a valid zip file: {why}.")


@contextmanager
def opened(path: Path) -> Iterator[ZipFile]:
    """Opens a zip file and reads its directory.

    Raises `VerificationFailed` for anything that is not a plain zip file, `InputOutputError` if it
    cannot be read.
    """
    with reading(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield ZipFile(str(path), descriptor, 0, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _split(file: ZipFile, directory: bytes, records: list[_Record]) -> list[bytes]:
    """Parses the records, and returns their names. Tens of thousands of iterations: only what is
    necessary."""
    position = 0
    raws: list[bytes] = []
    known: set[int] = set()
    unpack, fixed, total = _OUTLINE.unpack_from, CENTRAL.size, len(directory)
    while position + fixed <= total:
        fields = unpack(directory, position)
        magic, version, kind, packed, name_length, extra_length, comment_length, disk, offset = (
            fields
        )
        if magic != CENTRAL_MAGIC or version > _NEWEST_VERSION or disk:
            raise file.refuse("its directory is damaged")
        if kind not in known:
            _check_kind(file, kind)
            known.add(kind)
        if MAX_32 in (packed, offset):
            raise file.refuse(_ZIP64)
        records.append((position, offset, packed))
        position += fixed
        raws.append(directory[position : position + name_length])
        position += name_length
        if extra_length:
            _check_extra(file, directory[position : position + extra_length])
        position += extra_length + comment_length
    if position != total:
        raise file.refuse("its directory is damaged")
    return raws


def _check_kind(file: ZipFile, kind: int) -> None:
    """kind: flags, and the method above them."""
    method = kind >> 16
    if kind & 0xFFFF & ~_KNOWN_FLAGS or method not in _KNOWN_METHODS:
        raise file.refuse(f"an entry is encrypted or compressed by method {method}")


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


def _entry(file: ZipFile, directory: bytes, name: str, position: int) -> ZipEntry:
    fields = CENTRAL.unpack_from(directory, position)
    flags, method, crc, compressed, size = fields[3], fields[4], *fields[7:10]
    mode, offset = fields[15:]
    if size == MAX_32:
        raise file.refuse(_ZIP64)
    end = position + CENTRAL.size + sum(fields[10:13])
    record = directory[position:end]
    return ZipEntry(name, flags, method, crc, compressed, size, mode, offset, record)


def _decode(file: ZipFile, raw: bytes, flags: bytes) -> str:
    try:
        # Without the UTF-8 flag, each reader decodes in its own way.
        return raw.decode("utf-8" if int.from_bytes(flags, "little") & UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise file.refuse("it contains a name that is not UTF-8 or not marked as such") from error


def _raw_name(record: bytes) -> bytes:
    length = int.from_bytes(record[_LENGTHS_AT : _LENGTHS_AT + 2], "little")
    return record[CENTRAL.size : CENTRAL.size + length]


def _contents(file: ZipFile, entry: ZipEntry, offset: int) -> Generator[bytes, None, None]:
    """An entry's bytes, at most as many as the directory says, compared with its checksum.

    offset: where they begin in the file.
    """
    packed = _packed(file, entry, offset)
    left, crc = entry.size, 0
    for piece in _inflated(file, entry, packed) if entry.method == DEFLATED else packed:
        left -= len(piece)
        crc = zlib.crc32(piece, crc)
        if left < 0:
            break
        yield piece
    if left or crc != entry.crc:
        raise _damaged(file, entry)


def _packed(file: ZipFile, entry: ZipEntry, offset: int) -> Iterator[bytes]:
    end = offset + entry.compressed
    while piece := file.pread(min(BUFFER_BYTES, end - offset), offset):
        offset += len(piece)
        yield piece


def _inflated(file: ZipFile, entry: ZipEntry, packed: Iterator[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-15)
    rest = b""
    while not inflate.eof:
        rest = rest or next(packed, b"")
        try:
            piece = inflate.decompress(rest, BUFFER_BYTES)
        except zlib.error as error:
            raise file.refuse(f"{entry.name} cannot be decompressed") from error
        if not piece and not rest:
            raise _damaged(file, entry)
        yield piece
        rest = inflate.unconsumed_tail
    if inflate.unused_data or next(packed, b""):
        raise _damaged(file, entry)


def _damaged(file: ZipFile, entry: ZipEntry) -> VerificationFailed:
    return file.refuse(f"the bytes of {entry.name} are damaged")
