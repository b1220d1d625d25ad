"""Decodes a state's JSON as one value."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

import msgspec

# What a decoded document may take. Two are compared at a time, within the 150 MB of a command.
_MOST_MEMORY = 28 * 1024 * 1024
MOST_BYTES = _MOST_MEMORY // 2
# Measured, in bytes: an object, an array, and another value with its place in one of them.
_OBJECT, _ARRAY, _VALUE = 200, 72, 40
_HOLDS_OTHERS = re.compile(rb"\s*[\[{]")
_ENDS = {b"{": b"}", b"[": b"]"}
_TAIL_BYTES = 4096
# The bytes of a character in both texts that `json` needs.
_WIDEST = 8
# With which a byte order mark begins.
_MARKS = (b"\xef", b"\xfe", b"\xff")


def read_document(path: Path, *, to_count: bool = False) -> tuple[Any] | None:
    """The value of a JSON file, in a tuple with one item; None if not JSON or too large.

    to_count: as `as_json` has it; it is then not exactly what the file says.
    """
    if not path.is_file() or not 0 < path.stat().st_size <= MOST_BYTES:
        return None
    raw = path.read_bytes()
    if to_count:
        raw = as_json(raw) or b""
    if _memory(raw) > _MOST_MEMORY:
        return None
    # The garbage collector would traverse all new objects again and again, and find nothing.
    collects = gc.isenabled()
    gc.disable()
    try:
        return (msgspec.json.decode(raw),)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    finally:
        if collects:
            gc.enable()


def as_json(raw: bytes) -> bytes | None:
    """A document that Python's `json` reads, as every reader accepts it; None if there is none.

    Python also reads and writes NaN, and half of a character that was cut.
    """
    if is_json(raw := as_utf8(raw)):
        return raw
    wide = 0 if raw.isascii() else _WIDEST * len(raw)
    if not _HOLDS_OTHERS.match(raw) or _memory(raw) + wide > _MOST_MEMORY:
        return None
    import json

    try:
        document = json.loads(raw, parse_constant=lambda _: None)
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return text.encode(errors="replace")


def as_utf8(raw: bytes) -> bytes:
    """The text of a document in another encoding of Unicode, or with a byte order mark."""
    if raw[:1] not in _MARKS and b"\0" not in raw[:4]:
        return raw
    import json

    try:
        return raw.decode(json.detect_encoding(raw)).encode()
    except UnicodeError:
        return raw


def is_json(raw: bytes, *, cut: bool = False) -> bool:
    """Whether it is a JSON document or, if cut, at least the beginning of one."""
    # Before a comma there is a text or a whole value, and not half of a number.
    end = raw.rfind(b",", 0, -_TAIL_BYTES) if cut else len(raw)
    try:
        msgspec.json.decode(memoryview(raw)[:end], type=msgspec.Raw)
    except msgspec.DecodeError as error:
        return cut and "truncated" in str(error)
    except RecursionError:
        return False
    return True


def is_large_document(path: Path) -> bool:
    """Whether a file that was not decoded is JSON. Of the largest, only both ends are read."""
    with path.open("rb") as stream:
        raw = stream.read(MOST_BYTES + 1)
        if len(raw) <= MOST_BYTES:
            return is_json(raw)
        stream.seek(-min(_TAIL_BYTES, len(raw)), 2)
        tail = stream.read().rstrip()
    end = _ENDS.get(raw[:_TAIL_BYTES].lstrip()[:1])
    return end is not None and tail.endswith(end) and is_json(raw, cut=True)


def _memory(raw: bytes) -> int:
    """About how much memory a document takes with its text; more for one with much text inside."""
    if not _HOLDS_OTHERS.match(raw):  # counting takes longer than all else with a large text
        return 2 * len(raw)
    objects, arrays, values = (raw.count(sign) for sign in (b"{", b"[", b","))
    return 2 * len(raw) + _OBJECT * objects + _ARRAY * arrays + _VALUE * values
