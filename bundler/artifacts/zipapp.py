"""Writing zip files anew in pex's order, with what stays copied without being unpacked.

pex writes the user's files sorted by path and a distribution folder by folder, files before
folders; each directory comes just before the first file in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from bundler.artifacts.pexinfo import DEPS, PEX_INFO
from bundler.artifacts.trees import NewFile
from bundler.artifacts.zipfiles import STORED, Entry, ZipFile, ZipWriter


@dataclass(frozen=True)
class ZipChange:
    """What becomes of a zip file.

    added: files to write, by entry name. removed: names of files that go. walked: the folders,
    each with its slash, whose files are ordered as pex walks them. stored: names of files that
    are not to be compressed.
    """

    added: Mapping[str, NewFile]
    removed: frozenset[str]
    walked: tuple[str, ...] = ()
    stored: frozenset[str] = frozenset()


def rewrite(file: ZipFile, change: ZipChange, prefix: bytes, stream: BinaryIO) -> None:
    """Writes the changed zip to a stream that is empty and can be read and moved about in.

    prefix: what comes before the first entry, such as the ``#!`` line.
    """
    writer = ZipWriter(stream, compress=_is_compressed(file))
    writer.write_prefix(prefix)
    kept, directories = _sorted_out(file, change)
    order = _order(kept, change)
    run: list[Entry] = []
    written: set[str] = set()
    for name in order:
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
            _write_new(writer, name, change)
    _flush(writer, file, run)
    writer.finish()


def _is_compressed(file: ZipFile) -> bool:
    """A PEX is compressed or it is not, except for wheels in it, which never are."""
    entry = file.get(PEX_INFO)
    entries = file.entries if entry is None else (entry,)
    return any(entry.method != STORED for entry in entries)


def _sorted_out(file: ZipFile, change: ZipChange) -> tuple[dict[str, Entry], dict[str, Entry]]:
    kept: dict[str, Entry] = {}
    directories: dict[str, Entry] = {}
    for entry in file.entries:
        if entry.is_directory:
            directories[entry.name] = entry
        elif entry.name not in change.added and entry.name not in change.removed:
            kept[entry.name] = entry
    return kept, directories


def _order(kept: Mapping[str, Entry], change: ZipChange) -> list[str]:
    """All names in pex's order; a distribution that does not change keeps its own."""
    place = {name: index for index, name in enumerate(kept)}

    def key(name: str) -> tuple[str, int, tuple[tuple[int, str], ...]]:
        if name.startswith(change.walked):
            root = next(root for root in change.walked if name.startswith(root))
            return root[:-1], 0, _walk_key(name[len(root) :])
        if name.startswith(f"{DEPS}/"):
            return "/".join(name.split("/", 2)[:2]), place.get(name, 0), ()
        return name, 0, ()

    return sorted({**kept, **change.added}, key=key)


def _walk_key(path: str) -> tuple[tuple[int, str], ...]:
    *folders, name = path.split("/")
    return (*((1, folder) for folder in folders), (0, name))


def _write_new(writer: ZipWriter, name: str, change: ZipChange) -> None:
    file = change.added[name]
    with file.open() as stream:
        writer.write_stream(
            name, stream, mode=file.mode, compress=False if name in change.stored else None
        )


def _flush(writer: ZipWriter, file: ZipFile, run: list[Entry]) -> None:
    writer.copy(file, run)
    run.clear()


def _parents(path: str) -> Iterator[str]:
    """The directories of a path, outermost first, each with its slash."""
    end = path.find("/")
    while end >= 0:
        yield path[: end + 1]
        end = path.find("/", end + 1)
