"""Reads tar streams forward, in flat memory. Every member has one meaning, or is refused.

Programs that unpack layers disagree about odd headers: a name that is given twice, a global name, a
prefix in an old format. What they agree about is read here as Go's ``archive/tar`` reads it, with
which engines unpack; everything else raises `VerificationFailed`. A layer that a builder wrote has
nothing of the kind.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO, Literal

import msgspec

from bundler.errors import VerificationFailed
from bundler.system.readable import Readable

Kind = Literal["file", "directory", "symlink", "hardlink", "other"]

BLOCK_BYTES = 512
_ZEROS = bytes(BLOCK_BYTES)
_SKIP_BYTES = 256 * 1024
# A file's extended attributes are much smaller.
_MAX_EXTENDED_BYTES = 1024 * 1024
# Linux accepts no longer path or part of one; nobody nests this deeply.
_MAX_PATH_BYTES = 4096
_MAX_PART_BYTES = 255
_MAX_DEPTH = 256
_MAX_NUMBER = 2**63 - 1
# https://www.rfc-editor.org/rfc/rfc1950#section-9
_ADLER = 65521

_KINDS: dict[bytes, Kind] = {
    b"\0": "file",
    b"0": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "other",
    b"4": "other",
    b"5": "directory",
    b"6": "other",
}
# What precedes a member and overrides its header: attributes, a long name, a link's long target;
# and the orders in which they have one meaning.
_PAX, _GLOBAL_PAX, _LONG_NAME, _LONG_TARGET = b"x", b"g", b"L", b"K"
_ORDERS = (b"x", b"L", b"K", b"LK", b"KL")
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_RECORD_LENGTH = re.compile(rb"([1-9][0-9]{0,7}) ")
# Characters for which a name has to be split.
_ODD = re.compile(r"^[/.]|//|/\.")
_DECIMAL = re.compile(rb"[0-9]{1,19}")


class TarMember(msgspec.Struct, frozen=True):
    """A member of a tar stream.

    path: absolute and normalised. target: of a link, unchanged. offset: of its bytes. reader: of
    the stream.
    """

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    offset: int
    reader: TarReader

    def open(self) -> BinaryIO:
        """The bytes, valid until the next member is requested.

        Reading raises `VerificationFailed` if the stream ends before them.
        """
        if self.kind != "file":
            raise VerificationFailed(
                f"{self.reader.what} contains {self.path}, which is not a file."
            )
        return Readable(self.reader.fill).buffered()


def read_tar(
    stream: BinaryIO, what: str = "A layer", *, end: int | None = None
) -> Iterator[TarMember]:
    """The members of a tar stream in order.

    what: the stream's name for messages. end: the size of a file, which allows seeking. Raises
    `VerificationFailed` for anything that is not a tar stream, is truncated, or can be read in more
    than one way.
    """
    reader = TarReader(stream, what, end)
    while (member := reader.next()) is not None:
        yield member


def absolute(name: str, what: str = "A layer") -> str:
    """A member's name as an absolute path.

    Raises `VerificationFailed` for a name with ``..``, and for one that no file system accepts.
    """
    if len(name) <= _MAX_PART_BYTES and not _ODD.search(name):  # as almost all are
        return f"/{name}".rstrip("/") or "/"
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise VerificationFailed(f"{what} contains {name[:200]!r}, which leads outside the image.")
    if len(name) > _MAX_PART_BYTES:  # else no part of it can be too long
        longest = max((len(part.encode(errors="surrogateescape")) for part in parts), default=0)
        length = len(name.encode(errors="surrogateescape"))
        if longest > _MAX_PART_BYTES or length > _MAX_PATH_BYTES or len(parts) > _MAX_DEPTH:
            raise VerificationFailed(
                f"{what} contains a path that is too long for any file system: {name[:80]!r}…."
            )
    return "/" + "/".join(parts)


class TarReader:
    """A tar stream and the position in it. what: the stream's name for messages."""

    def __init__(self, stream: BinaryIO, what: str = "A layer", end: int | None = None) -> None:
        self.what = what
        self._stream = stream
        self._end = end
        self._at = 0
        self._left = 0  # of the member's bytes
        self._padding = 0

    def next(self) -> TarMember | None:
        """The next member; None at the end."""
        self._finish_member()
        records: dict[str, bytes] = {}
        before = b""
        while (block := self._header()) is not None:
            kind = block[156:157]
            if kind in _KINDS:
                return self._member(block, kind, records)
            records |= self._records(block, kind, before)
            before += kind if kind != _GLOBAL_PAX else b""
        if before:
            raise self._damaged("it ends after a header without its member")
        return None

    def fill(self, buffer: memoryview) -> int:
        """Reads more of the member's bytes; 0 at their end."""
        data = self._content(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    # --- the stream

    def _finish_member(self) -> None:
        if self._end is not None and self._left:
            self._at += self._left
            self._left = 0
            if self._at > self._end:
                raise self._damaged("it is truncated")
            self._stream.seek(self._at)
        while self._content(_SKIP_BYTES):
            pass
        if self._padding:  # the last member may lack it
            self._at += len(self._stream.read(self._padding))
            self._padding = 0

    def _content(self, most: int) -> bytes:
        data = self._stream.read(min(most, self._left))
        if not data and self._left:
            raise self._damaged("it is truncated")
        self._at += len(data)
        self._left -= len(data)
        return data

    def _header(self) -> bytes | None:
        """The next header, with a valid checksum; None at the end. umoci writes no end marker
        after the last member."""
        block = self._stream.read(BLOCK_BYTES)
        self._at += len(block)
        if not block:
            return None
        if len(block) < BLOCK_BYTES:
            raise self._damaged("it is truncated")
        if block == _ZEROS:
            if self._stream.read(BLOCK_BYTES) not in (_ZEROS, b""):
                raise self._damaged("it continues after its end")
            return None
        # The sum of all bytes, those of the checksum itself counted as spaces. The lower half of
        # Adler-32 is that sum, too, in a tenth of the time.
        said = self._number(block[148:156]) + sum(block[148:156]) - 8 * ord(" ")
        if (said + 1 - (zlib.adler32(block) & 0xFFFF)) % _ADLER:
            raise self._damaged("it has an invalid header")
        return block

    def _bytes_after(self, block: bytes) -> bytes:
        size = self._number(block[124:136])
        if size > _MAX_EXTENDED_BYTES:
            raise self._refused("contains a header that is too large")
        whole = self._stream.read(-(-size // BLOCK_BYTES) * BLOCK_BYTES)
        self._at += len(whole)
        if len(whole) < size:
            raise self._damaged("it is truncated")
        return whole[:size]

    # --- what is in front of a header

    def _records(self, block: bytes, kind: bytes, before: bytes) -> dict[str, bytes]:
        """What a header in front of a member's says about it. before: the kinds that preceded."""
        if kind == _GLOBAL_PAX and not before:
            # git archive stores its commit here. Some programs apply other records, some do not.
            if set(self._lines(self._bytes_after(block))) - {"comment"}:
                raise self._refused("contains attributes for all of its members")
            return {}
        if kind not in (_GLOBAL_PAX, _PAX, _LONG_NAME, _LONG_TARGET):
            raise self._refused(f"contains a member of the unknown type {kind!r}")
        if before + kind not in _ORDERS:
            raise self._refused("contains a member with several names or sets of attributes")
        content = self._bytes_after(block)
        if kind == _PAX:
            return self._lines(content)
        return {"path" if kind == _LONG_NAME else "linkpath": content.rstrip(b"\0")}

    def _lines(self, raw: bytes) -> dict[str, bytes]:
        """Parses lines of ``LENGTH KEY=VALUE``, each key once."""
        found: dict[str, bytes] = {}
        at = 0
        while at < len(raw):
            match = _RECORD_LENGTH.match(raw, at)
            end = at + int(match[1]) if match else 0
            if match is None or not match.end() < end <= len(raw) or raw[end - 1 : end] != b"\n":
                raise self._refused("contains attributes that cannot be read")
            name, equals, value = raw[match.end() : end - 1].partition(b"=")
            key = name.decode(errors="surrogateescape")
            if not equals or not key or key in found or "\0" in key:
                raise self._refused("contains inconsistent attributes")
            if key.startswith("GNU.sparse."):
                raise self._refused("contains a sparse file, which programs read differently")
            if ".overlay." in key:
                raise self._refused("changes how layers are combined")
            found[key] = value
            at = end
        return found

    # --- the header

    def _member(self, block: bytes, flag: bytes, records: dict[str, bytes]) -> TarMember:
        for key in ("path", "linkpath"):
            value = records.get(key, b"-")
            if not value or b"\0" in value:
                raise self._refused("contains an invalid name")
        own = self._own_name(block)
        name, target = records.get("path", own), records.get("linkpath")
        kind = _KINDS[flag]
        if flag == b"\0":  # the old format only has the slash to say so; Python takes it from here
            if name.endswith(b"/") != own.endswith(b"/"):
                raise self._refused("contains a header in a format that programs read differently")
            kind = "directory" if own.endswith(b"/") else "file"
        size = self._field(records, "size", block[124:136])
        if kind != "file":  # some programs write the size of a link's target
            size = 0
        self._left = size
        self._padding = -size % BLOCK_BYTES
        if target is None and kind in ("symlink", "hardlink"):
            target = block[157:257].split(b"\0", 1)[0]
        return TarMember(
            absolute(name.decode(errors="surrogateescape"), self.what),
            kind,
            self._number(block[100:108]) & 0o7777,
            self._field(records, "uid", block[108:116]),
            self._field(records, "gid", block[116:124]),
            size,
            target.decode(errors="surrogateescape") if target else "",
            self._at,
            self,
        )

    def _own_name(self, block: bytes) -> bytes:
        name = block[:100].split(b"\0", 1)[0]
        if block[257:263] == b"ustar\0" and block[508:512] != b"tar\0":
            prefix = block[345:500].split(b"\0", 1)[0]
            return prefix + b"/" + name if prefix else name
        # GNU's format has other fields here, which some programs read as a prefix.
        if any(block[345:500]):
            raise self._refused("contains a header in a format that programs read differently")
        return name

    def _field(self, records: dict[str, bytes], key: str, own: bytes) -> int:
        value = records.get(key)
        if value is None:
            return self._number(own)
        if not _DECIMAL.fullmatch(value) or int(value) > _MAX_NUMBER:
            raise self._refused(f"contains an invalid {key}")
        return int(value)

    def _number(self, field: bytes) -> int:
        value = _parsed(field)
        if not 0 <= value <= _MAX_NUMBER:
            raise self._damaged("it has an invalid header")
        return value

    def _damaged(self, problem: str) -> VerificationFailed:
        return VerificationFailed(f"{self.what} is not a tar archive: {problem}.")

    def _refused(self, problem: str) -> VerificationFailed:
        return VerificationFailed(f"{self.what} {problem}.")


@lru_cache(maxsize=1024)  # most members have the modes, owners and times of others
def _parsed(field: bytes) -> int:
    """Octal digits or, in GNU's format, big-endian bytes after a marker; -1 for anything else."""
    if field[0] == 0x80:  # noqa: PLR2004  # the mark of a positive number
        return int.from_bytes(field[1:], "big")
    match = _OCTAL.fullmatch(field)
    return -1 if match is None else int(match[1] or b"0", 8)
