"""Rewrites zip files in pex's order; unchanged entries are copied without being unpacked.

pex writes the user's files sorted by path and a distribution folder by folder, files before
folders; each directory precedes the first file in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import msgspec

from bundler.artifacts.python.pex.info import BOOTSTRAP, DEPS, PEX_INFO
from bundler.artifacts.python.trees import NewFile, Tree, TreeChange
from bundler.artifacts.python.zipfiles import STORED, ZipEntry, ZipFile
from bundler.artifacts.python.zipwriter import ZipWriter

# Names with this prefix precede all of the user's names that begin with a letter.
_HEAD = (f"{BOOTSTRAP}/", f"{DEPS}/")
_IN_EVERY_PEX = _HEAD


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
    kept, directories = _sorted_out(entries, changes)
    run: list[ZipEntry] = []
    written = {directory for directory in _IN_EVERY_PEX if directory not in directories}
    for name in _order(kept, changes):
        for directory in _parents(name):
            if directory in written:
                continue
            written.add(directory)
            if directory in directories:
                run.append(directories[directory])
            else:
                _flush(writer, file, run)
                writer.write_directory(directory)
        if name in kept:
            run.append(kept[name])
        else:
            _flush(writer, file, run)
            _write_new(writer, name, changes)
    _flush(writer, file, run)


def _is_compressed(file: ZipFile) -> bool:
    """A PEX is either compressed or not, except for wheels in it, which never are."""
    entry = file.get(PEX_INFO)
    entries = file.entries if entry is None else (entry,)
    return any(entry.method != STORED for entry in entries)


def _sorted_out(
    entries: Sequence[ZipEntry], changes: FileChanges
) -> tuple[dict[str, ZipEntry], dict[str, ZipEntry]]:
    kept: dict[str, ZipEntry] = {}
    directories: dict[str, ZipEntry] = {}
    for entry in entries:
        if entry.is_directory:
            directories[entry.name] = entry
        elif entry.name not in changes.added and entry.name not in changes.removed:
            kept[entry.name] = entry
    return kept, directories


def _order(kept: Mapping[str, ZipEntry], changes: FileChanges) -> list[str]:
    """All names in pex's order; an unchanged distribution keeps its own."""
    place = {name: index for index, name in enumerate(kept)}
    walked = tuple(changes.walked)

    def key(name: str) -> tuple[str, int, tuple[tuple[int, str], ...]]:
        if name.startswith(walked):
            root = next(root for root in walked if name.startswith(root))
            return root[:-1], 0, _walk_key(name[len(root) :])
        if name.startswith(f"{DEPS}/"):
            return _distribution(name), place.get(name, 0), ()
        return name, 0, ()

    return sorted({**kept, **changes.added}, key=key)


def _walk_key(path: str) -> tuple[tuple[int, str], ...]:
    *folders, name = path.split("/")
    return (*((1, folder) for folder in folders), (0, name))


def _write_new(writer: ZipWriter, name: str, changes: FileChanges) -> None:
    file = changes.added[name]
    with file.open() as stream:
        compress = False if name in changes.stored else None
        writer.write_stream(name, stream, mode=file.mode, compress=compress, size=file.size)


def _flush(writer: ZipWriter, file: ZipFile, run: list[ZipEntry]) -> None:
    writer.copy(file, run)
    run.clear()


def _parents(path: str) -> Iterator[str]:
    """The directories of a path, outermost first, each with its slash."""
    end = path.find("/")
    while end >= 0:
        yield path[: end + 1]
        end = path.find("/", end + 1)
