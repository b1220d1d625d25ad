"""Makes dbt's files independent of where the project was when it was parsed.

A project that dagster-dbt clones is parsed in the staging area, a local one before it is copied.
dbt writes that directory into the entry of each seed (``root_path``), in ``manifest.json`` and in
``partial_parse.msgpack``. dbt runs in the project's own directory, so ``.`` means the same,
wherever the state is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bundler.refresh.dbt_projects import DECLARATION, PARSED
from bundler.refresh.scanning import windows
from bundler.system.atomic import io_errors
from bundler.system.walking import walk

_CHUNK_BYTES = 1024 * 1024


def relocate(directory: Path, sources: Sequence[str] = ()) -> None:
    """Makes what dbt parsed in this directory, or below it, independent of its path.

    sources: the directories of projects that were parsed there and then copied. Raises
    `InputOutputError`.
    """
    with io_errors(directory):
        for parent, _, files in walk(directory):
            if PARSED in files:
                for path in sorted(Path(parent).iterdir()):
                    if path.suffix in (".json", ".msgpack") and path.is_file():
                        _replace_all(path, [_project_of(path, directory), *map(Path, sources)])


def _project_of(path: Path, directory: Path) -> Path:
    """The project of a file in dbt's target directory."""
    for parent in path.parents:
        if parent == directory:
            break
        if (parent / DECLARATION).is_file():
            return parent
    return path.parent.parent


def _replace_all(path: Path, projects: Sequence[Path]) -> None:
    for project in projects:
        for old, new in _replacements(project, escaped=path.suffix == ".json"):
            with open(path, "rb") as stream:
                found = any(old in window for _, window in windows(stream, len(old)))
            if found:
                beside = path.with_name(f"{path.name}.relocated")
                with open(beside, "wb") as output:
                    output.writelines(_replaced(path, old, new))
                os.replace(beside, path)


def _replacements(project: Path, *, escaped: bool) -> Iterator[tuple[bytes, bytes]]:
    for name in sorted({str(project), os.path.realpath(project)}):
        if not escaped:
            old = os.fsencode(name)
            # msgpack prefixes strings with their length, so "." is as long: "./././."
            yield old, (b"./" * len(old))[: len(old)]
            continue
        for ascii_only in (True, False):
            old = json.dumps(name, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "surrogateescape")
            yield from ((old + end, b"." + end) for end in (b'"', b"/"))


def _replaced(path: Path, old: bytes, new: bytes) -> Iterator[bytes]:
    keep = len(old) - 1
    tail = b""
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            data = (tail + chunk).replace(old, new)
            cut = max(0, len(data) - keep)
            yield data[:cut]
            tail = data[cut:]
    yield tail
