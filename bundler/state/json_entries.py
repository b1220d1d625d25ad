"""The entries of a JSON document: what `min-entries`, `refresh`, `verify` and `diff` count.

They are the items of its outermost collections: lists, and objects that hold records of one shape.
A document without any has as many entries as it has values that hold no others.
"""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bundler.state.jsondiff import SAMPLE, is_collection
from bundler.state.volatile import NOTHING_VOLATILE, Volatile
from bundler.system.documents import as_json, as_utf8, is_json, read_document

# Text up to this size is read. Together with one object of that many members it takes about as much
# memory as two decoded documents.
_MOST_BYTES = 32 * 1024 * 1024
_MOST_MEMBERS = 128 * 1024
_MOST_OBJECTS = 1024 * 1024
_LEAST_MEMBER = len('"":0,')
_TOKENS = re.compile(
    rb'[\[{][^][{}"\\]*(?:"[^"\\]*"[^][{}"\\]*){0,64}[\]}]'  # a container without others inside
    rb'|"[^"\\]*"?|\\.[^"\\]*"?'  # text up to its end or an escape, or from there
    rb'|[][{}]|[^][{}"\\]{1,4096}',
    re.DOTALL,
)
_SIGNS = re.compile(
    rb'[\[{]\s*[\]}]?|[\]},:]|"[^"\\]*"?|\\.[^"\\]*"?|[^][{},:"\\\s]{1,4096}', re.DOTALL
)


class _SkippedObject(msgspec.Struct, gc=False):
    """Any object; its members are skipped."""


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Skips records some 25 times as fast as the expressions, which need no memory for each.
_OBJECTS = msgspec.json.Decoder(list[_SkippedObject])
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "lzma"}
_MOST_COMPRESSED = 512  # nothing, and a name
_EMPTY = re.compile(rb"[\[{]\s*[\]}]")


class TooLargeToCountError(Exception):
    """A JSON document is too large to count its entries."""


class JsonSize(msgspec.Struct, frozen=True):
    """length: bytes without white space."""

    entries: int
    length: int


def entries_in(stream: BinaryIO) -> int | None:
    """The entries of a JSON document; None if it is not JSON.

    Decodes one object at a time. Raises `TooLargeToCountError`.
    """
    text = _text(stream)
    return None if text is None else _count(text)


def size_of(path: Path, volatile: Volatile = NOTHING_VOLATILE) -> JsonSize | None:
    """How much a JSON document holds; None if it is not JSON. Raises `TooLargeToCountError`.

    volatile: members that are not counted as entries.
    """
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        text = _text(stream)
    if text is None:
        return None
    return JsonSize(_count(text, volatile), len(msgspec.json.format(text, indent=-1)))


def _text(stream: BinaryIO) -> bytes | None:
    text = stream.read(_MOST_BYTES + 1)
    if len(text) <= _MOST_BYTES:
        return as_json(text)
    if is_json(text, cut=True):
        raise TooLargeToCountError
    return None


def _count(text: bytes, volatile: Volatile = NOTHING_VOLATILE) -> int:
    entries = leaves = 0
    pending: list[tuple[str, Any]] = [("", text.strip())]
    while pending:
        name, value = pending.pop()
        first = _first(value)
        if first == b"[":
            entries += _length(value)
        elif first == b"{":
            members = _members(value, volatile)
            outlines = _outlines(members, volatile)
            if outlines and is_collection(outlines, outlines, name):
                entries += len(members)
            elif len(pending) + len(members) > _MOST_MEMBERS:
                raise TooLargeToCountError
            else:
                pending += members.items()
        else:
            leaves += 1
    return entries or (leaves if _first(text.strip()) == b"{" else 0)


def _first(value: Any) -> bytes:
    return bytes(memoryview(value)[:1])


def _members(text: Any, volatile: Volatile) -> dict[str, msgspec.Raw]:
    if len(memoryview(text)) > _LEAST_MEMBER * _MOST_MEMBERS and _length(text) > _MOST_MEMBERS:
        raise TooLargeToCountError
    members = _MEMBERS.decode(text)
    for name in members.keys() & (volatile.known | volatile.named):
        if volatile.covers(name, holds_others=_first(members[name]) in b"[{"):
            del members[name]
    return members


def _length(text: Any) -> int:
    """The number of items of an array, or members of an object."""
    if _EMPTY.fullmatch(text):
        return 0
    if _first(text) == b"[" and bytes(memoryview(text)).count(b"{") <= _MOST_OBJECTS:
        with suppress(msgspec.ValidationError):  # not all are objects
            return len(_OBJECTS.decode(text))
    depth = commas = 0
    for found in _TOKENS.finditer(text, 1):
        token = found[0]
        if token in (b"[", b"{"):
            depth += 1
        elif token in (b"]", b"}"):
            depth -= 1
        elif not depth and token[:1] not in b'"\\[{':
            commas += token.count(b",")
    return commas + 1


def _outlines(members: dict[str, msgspec.Raw], volatile: Volatile) -> dict[str, Any] | None:
    """Of each member, what `is_collection` looks at; None if one is not an object."""
    if any(_first(value) != b"{" for value in members.values()):
        return None
    sampled = {*list(members)[:SAMPLE], *list(members)[-SAMPLE:]}
    return {name: _outline(value, volatile, name in sampled) for name, value in members.items()}


def _outline(text: msgspec.Raw, volatile: Volatile, sampled: bool) -> dict[str, Any]:
    outline = {name: _shown(value) for name, value in _members(text, volatile).items()}
    if sampled:
        return outline
    # Only whether they are records matters of the others.
    return next(({"": None} for value in outline.values() if value != {}), {})


def _shown(value: msgspec.Raw) -> Any:
    first = _first(value)
    return {} if first == b"{" else msgspec.json.decode(value) if first == b'"' else None


def count_values(document: Any) -> int:
    """Items of arrays and members of objects, at every depth."""
    total = 0
    level = [document]
    while level:
        values: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                values += value.values()
            elif isinstance(value, list):
                values += value
        total += len(values)
        level = [value for value in values if isinstance(value, (dict, list))]
    return total


def is_empty(path: Path, volatile: Volatile = NOTHING_VOLATILE) -> bool:
    """Whether a JSON document is empty: null, "", [], {}, or containers of empty items only; or
    only white space, or nothing that was compressed.

    Of the largest, only the beginning is read. volatile: members that do not count; in a document
    that is too large to decode, they do.
    """
    if not path.is_file():
        return False
    if volatile != NOTHING_VOLATILE and (document := read_document(path)) is not None:
        volatile.drop(document[0])
        return _holds_nothing(msgspec.json.encode(document[0]))
    with path.open("rb") as stream:
        raw = stream.read(_MOST_BYTES + 1)
    text, is_whole = as_utf8(raw), len(raw) <= _MOST_BYTES
    if raw and not text.strip():
        return is_whole
    return _is_compressed_nothing(raw) or (_holds_nothing(text) and (not is_whole or is_json(text)))


def _is_compressed_nothing(raw: bytes) -> bool:
    """As a shell writes it if the first program of a pipe fails: ``pg_dump … | gzip``."""
    module = next((name for sign, name in _COMPRESSED.items() if raw.startswith(sign)), None)
    if module is None or len(raw) > _MOST_COMPRESSED:
        return False
    with suppress(Exception):  # each library has errors of its own for what is cut or no such file
        return not import_module(module).decompress(raw).strip()
    return False


def _holds_nothing(text: bytes) -> bool:
    outer: list[bytes] = []  # an open array, an object without containers so far, another object
    for found in _SIGNS.finditer(text):
        token, sign = found[0], found[0][:1]
        if sign in b"[{":
            if outer[-1:] == [b"{"]:
                outer[-1] = b"+"
            if token[-1:] not in b"]}":
                outer.append(sign)
        elif sign in b"]}":
            if not outer or outer.pop() == b"{":
                return False
        elif sign not in b",:" and outer[-1:] in ([], [b"["]):
            return not outer and token in (b"null", b'""')
    return bool(text)
