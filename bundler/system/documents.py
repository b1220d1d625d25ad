"""Decodes a state's JSON as one value."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import msgspec

# What a decoded document may take. Two are compared at a time, within the 150 MB of a command.
_MOST_MEMORY = 28 * 1024 * 1024
MOST_BYTES = _MOST_MEMORY // 2
# Measured, in bytes: an object, an array, and another value with its place in one of them.
_OBJECT, _ARRAY, _VALUE = 200, 72, 40
_START_BYTES = 4096


def read_document(path: Path) -> tuple[Any] | None:
    """What a JSON file holds, as `decoded` returns it."""
    if not path.is_file() or not 0 < path.stat().st_size <= MOST_BYTES:
        return None
    return decoded(path.read_bytes())


def is_large_document(path: Path) -> bool:
    """Whether a file that was not decoded is JSON. Of the largest, only the start is looked at."""
    with path.open("rb") as stream:
        raw = stream.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        return raw[:_START_BYTES].lstrip()[:1] in (b"{", b"[")
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
    return True


def decoded(raw: bytes) -> tuple[Any] | None:
    """The value of a JSON document, in a tuple with one item; None if not JSON or too large."""
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


def _memory(raw: bytes) -> int:
    """About how much memory a document takes with its text; more for one with much text inside."""
    objects, arrays, values = (raw.count(sign) for sign in (b"{", b"[", b","))
    return 2 * len(raw) + _OBJECT * objects + _ARRAY * arrays + _VALUE * values
