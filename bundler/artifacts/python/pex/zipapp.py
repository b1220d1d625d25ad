"""Rewrites zip files in pex's order; unchanged entries are copied without being unpacked.

pex writes the user's files sorted by path and a distribution folder by folder, files before
folders; each directory precedes the first file in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import BinaryIO

import msgspec

from bundler.artifacts.python.pex.info import BOOTSTRAP, DEPS, PEX_INFO
from bundler.artifacts.python.trees import NewFile, Tree, TreeChange, prefixes
from bundler.artifacts.python.zipfiles import STORED, ZipEntry, ZipFile
from bundler.artifacts.python.zipwriter import ZipWriter

# In every PEX, before all of the user's names that begin with a letter.
_HEAD = (f"{BOOTSTRAP}/", f"{DEPS}/")


class FileChanges(msgspec.Struct):
    """The changes of a PEX, or of a zip file in it, by paths from its top.

    added: files to write. removed: files. walked: the folders, each with its slash, whose files are
    ordered as pex walks them. stored: files that are not to be compressed.
    """

    added: dict[str, NewFile] = msgspec.field(default_factory=dict)
    removed: set[str] = msgspec.field(default_factory=set)
    walked: list[str] = msgspec.field(default_factory=list)
    stored: set[str] = msgspec.field(default_factory=set)

    def take(self, tree: Tree, change: TreeChange) -> None:
        self.added.update((tree.at(path), file) for path, file in change.added.items())
        self.removed.update(tree.at(path) for path in tree.leaves if change.removes(path))


def rewrite(file: ZipFile, changes: FileChanges, prefix: bytes, stream: BinaryIO) -> None:
    """Writes the changed zip to an empty stream that supports reading and seeking.

    prefix: what precedes the first entry, such as the ``#!`` line.
    """
    writer = ZipWriter(stream, compress=_is_compressed(file))
    writer.write_prefix(prefix)
    in_place = file.is_in_order and len(prefix) == file.prefix
    head = _untouched_head(file, changes) if in_place else 0
    entries = file.entries_from(head)
    if head:
        writer.copy_head(file, head)
    _write_sorted(file, entries, changes, writer)
    writer.finish()


def _untouched_head(file: ZipFile, changes: FileChanges) -> int:
    """How many entries stay unchanged before the first that may change or move.

    pex's bootstrap and the distributions come first, and are most of the file.
    """
    touched = (*changes.walked, *changes.added, *changes.removed)
    if any(not name.startswith(_HEAD) and name < _HEAD[-1] for name in touched):
        return 0
    distributions = {_distribution(name) for name in touched if name.startswith(f"{DEPS}/")}
    for index, name in enumerate(file.names):
        if not name.startswith(_HEAD) or (distributions and _distribution(name) in distributions):
            return index
    return len(file.names)


def _distribution(name: str) -> str:
    return "/".join(name.split("/", 2)[:2])


def _write_sorted(
    file: ZipFile, entries: Sequence[ZipEntry], changes: FileChanges, writer: ZipWriter
) -> None:
    for is_new, parts in groupby(_sorted(entries, changes), lambda part: part[1] is None):
        if not is_new:
            writer.copy(file, [entry for _, entry in parts if entry is not None])
            continue
        for name, _ in parts:
            if name.endswith("/"):
                writer.write_directory(name)
            else:
                _write_new(writer, name, changes)


def _sorted(
    entries: Sequence[ZipEntry], changes: FileChanges
) -> Iterator[tuple[str, ZipEntry | None]]:
    """The names in pex's order, each with the entry to copy; None for a new one."""
    kept = {entry.name: entry for entry in entries if entry.name not in changes.removed}
    names = {name: None for name in (*kept, *changes.added) if not name.endswith("/")}
    written = {directory for directory in _HEAD if directory not in kept}
    for name in sorted(names, key=partial(_place, changes)):
        *folders, _ = prefixes(name)
        for path in (*(f"{folder}/" for folder in folders), name):
            if path not in written:
                written.add(path)
                yield path, None if path in changes.added else kept.get(path)


def _is_compressed(file: ZipFile) -> bool:
    """A PEX is either compressed or not, except for wheels in it, which never are."""
    entry = file.get(PEX_INFO)
    entries = file.entries if entry is None else (entry,)
    return any(entry.method != STORED for entry in entries)


def _place(changes: FileChanges, name: str) -> tuple[str, tuple[tuple[int, str], ...]]:
    """Sorts by pex's order; an unchanged distribution keeps its own."""
    for root in changes.walked:
        if name.startswith(root):
            return root[:-1], _walk_key(name[len(root) :])
    return _distribution(name) if name.startswith(f"{DEPS}/") else name, ()


def _walk_key(path: str) -> tuple[tuple[int, str], ...]:
    *folders, name = path.split("/")
    return (*((1, folder) for folder in folders), (0, name))


def _write_new(writer: ZipWriter, name: str, changes: FileChanges) -> None:
    file = changes.added[name]
    with file.open() as stream:
        compress = False if name in changes.stored else None
        writer.write_stream(name, stream, mode=file.mode, compress=compress, size=file.size)
