"""What changes in a state at every run without meaning anything.

Members are names in JSON documents; files are patterns of paths in a key directory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bundler.system.documents import is_large_document, read_document

DBT_MEMBERS = (
    "created_at",
    "generated_at",
    "invocation_id",
    "invocation_started_at",
    "root_path",  # the project's directory, in seeds
    "run_started_at",
    "user_id",  # the number of this machine's user
)
DBT_CLOUD_MEMBERS = (
    *DBT_MEMBERS,
    "DBT_CLOUD_RUN_ID",  # in the manifest
    "next_run",  # of a job, as the following
    "next_run_humanized",
    "run_failure_count",
)
DBT_FILES = ("*/partial_parse.msgpack", "*/perf_info.json", "*.log")
FIVETRAN_MEMBERS = ("succeeded_at",)


class Volatile(msgspec.Struct, frozen=True):
    """Names of members. known: unless they hold others. named: whatever they hold."""

    known: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()

    def covers(self, name: str, *, holds_others: bool) -> bool:
        # A column of a table may have the name of one of dbt's own members.
        return name in self.named or (name in self.known and not holds_others)

    def drop(self, document: Any) -> None:
        """Removes the members from a decoded document."""
        pending = [document]
        while pending:
            value = pending.pop()
            if isinstance(value, dict):
                for name in value.keys() & (self.known | self.named):
                    if self.covers(name, holds_others=isinstance(value[name], (dict, list))):
                        del value[name]
                pending += value.values()
            elif isinstance(value, list):
                pending += value


NOTHING_VOLATILE = Volatile()

_CHUNK_BYTES = 1024 * 1024
# More than a member with its name and value takes that is cut out of a large document.
_HELD_BYTES = 16 * 1024
_VALUE = rb'\s{0,64}:\s{0,64}(?:"(?:[^"\\]|\\.){0,4096}"|[-+.\w]{1,64}(?=\s{0,64}[,}]))'


def meaning(path: Path, sha256: str, volatile: Volatile) -> str:
    """The digest of a JSON file without its volatile members; of any other file, `sha256`.

    A document that is too large to decode is digested as it is written, without those members that
    hold no others.
    """
    if not (path.name == "state" or path.suffix == ".json"):
        return sha256
    document = read_document(path)
    if document is not None:
        volatile.drop(document[0])
        return hashlib.sha256(msgspec.json.encode(document[0], order="sorted")).hexdigest()
    if not is_large_document(path):
        return sha256
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for part in _without(stream, volatile.known | volatile.named):
            digest.update(part)
    return digest.hexdigest()


def _without(stream: BinaryIO, names: frozenset[str]) -> Iterator[bytes]:
    """The text of a document without its members of these names, in constant memory.

    A quote without a backslash before it begins or ends a text. With a name, a quote and a colon
    after it, it begins the name of a member.
    """
    encoded = (re.escape(msgspec.json.encode(name)[1:-1]) for name in sorted(names))
    member = re.compile(rb'(?<!\\)"(?:' + b"|".join(encoded) + rb')"' + _VALUE)
    held, start, chunk = b"", 0, b" "
    while chunk:
        chunk = stream.read(_CHUNK_BYTES)
        held += chunk
        sure = max(start, len(held) - _HELD_BYTES) if chunk else len(held)
        for found in member.finditer(held, start):
            if found.start() >= sure:
                break
            yield held[start : found.start()]
            start = found.end()
        yield held[start:sure]
        start = max(start, sure)
        before = max(0, start - 1)
        held, start = held[before:], start - before
