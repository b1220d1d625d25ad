"""A tree of files inside an artifact, whether they lie in a folder or in a zip file.

Everything that may be put in front of a program's imports is such a tree: the code at the top of a
PEX, each distribution in it, a wheel. State directories are found and read the same way in all.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

import msgspec

from bundler.artifacts.python.zipfiles import ZipFile
from bundler.errors import InputOutputError, VerificationFailed
from bundler.state.artifact import Member
from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY
from bundler.state.manifest import MAX_MANIFEST_BYTES

# Digests are hexadecimal, so that no real manifest is ever packed to a tenth of its size; a small
# entry that claims to be a huge manifest only wants our memory.
_MAX_MANIFEST_RATIO = 20
_IGNORE_NAME = ".gitignore"
_MAX_TEXT_BYTES = 64 * 1024 * 1024
_FREE_OF_SUSPICION_BYTES = 1024 * 1024


class Leaf(msgspec.Struct, frozen=True):
    """A file of a tree. size: in bytes. packed: the bytes that it takes up in the artifact."""

    kind: Literal["file", "other"]
    size: int
    packed: int
    open: Callable[[], BinaryIO]


class NewFile(msgspec.Struct, frozen=True):
    """A file that is to be written. size: in bytes. mode: permission bits, None for the usual."""

    open: Callable[[], BinaryIO]
    size: int
    sha256: str
    mode: int | None = None

    @classmethod
    def of(cls, data: bytes, mode: int | None = None) -> NewFile:
        digest = hashlib.sha256(data).hexdigest()
        return cls(lambda: io.BytesIO(data), len(data), digest, mode)


class TreeChange(msgspec.Struct, frozen=True):
    """What becomes of a tree.

    added: files to write, by relative path. replaced: directories whose every file goes first.
    """

    added: Mapping[str, NewFile]
    replaced: tuple[str, ...] = ()

    def keeps(self, path: str) -> bool:
        """Whether a file that is there stays as it is."""
        return path not in self.added and not self.removes(path)

    def removes(self, path: str) -> bool:
        return any(path.startswith(f"{directory}/") for directory in self.replaced)

    def and_also(self, added: Mapping[str, NewFile]) -> TreeChange:
        return TreeChange({**self.added, **added}, self.replaced)


class Tree(msgspec.Struct, frozen=True):
    """path: where the tree is in the artifact; empty for its top. leaves: by relative path.

    zip: the zip file that the tree is the whole of, such as a wheel; None for any other tree.
    """

    path: str
    leaves: Mapping[str, Leaf]
    zip: ZipFile | None = None

    def at(self, relative: str) -> str:
        """The artifact's name for a path in this tree."""
        return f"{self.path}/{relative}" if self.path else relative

    def changed(self, change: TreeChange) -> dict[str, Callable[[], BinaryIO]]:
        """How to open each file of the tree as it will be."""
        files = {path: self.leaves[path].open for path in self.leaves if change.keeps(path)}
        files.update((path, file.open) for path, file in change.added.items())
        return files

    def read(self, path: str) -> bytes:
        """A small file. Raises `VerificationFailed` where it is missing or too large for one."""
        leaf = self.leaves.get(path)
        if leaf is None or leaf.kind != "file" or leaf.size > _MAX_TEXT_BYTES:
            raise VerificationFailed(f"{self.at(path)} is missing, or is no plain text.")
        with leaf.open() as stream:
            return stream.read()

    def below(self, directory: str) -> Iterator[tuple[str, Leaf]]:
        """The files below a directory, by paths relative to that."""
        start = f"{directory}/"
        for path in self.leaves:
            if path.startswith(start):
                yield path[len(start) :], self.leaves[path]

    def state_directories(self) -> Iterator[TreeStateDirectory]:
        """Every directory that has the name of a state directory, or a manifest in it.

        Without the one that Dagster makes when it loads a code location that has none.
        """
        hints = (STATE_DIRECTORY, MANIFEST_NAME)
        likely = [path for path in self.leaves if hints[0] in path or hints[1] in path]
        found = dict.fromkeys(filter(None, map(_state_directory_of, likely)))
        return (TreeStateDirectory(self, directory) for directory in found)


def _state_directory_of(path: str) -> str | None:
    if path.endswith(f"{STATE_DIRECTORY}/{_IGNORE_NAME}"):
        return None
    if path.endswith(f"/{MANIFEST_NAME}"):
        return path[: -len(MANIFEST_NAME) - 1]
    before, found, _ = f"/{path}".partition(f"/{STATE_DIRECTORY}/")
    return f"{before}/{STATE_DIRECTORY}"[1:] if found else None


class TreeStateDirectory(msgspec.Struct, frozen=True):
    """A state directory in a tree."""

    tree: Tree
    relative: str

    sealed: ClassVar[bool] = False
    concurrent: ClassVar[bool] = True

    @property
    def path(self) -> str:
        return self.tree.at(self.relative)

    def read_manifest(self) -> bytes | None:
        leaf = self.tree.leaves.get(f"{self.relative}/{MANIFEST_NAME}")
        if leaf is None:
            return None
        bomb = leaf.size > max(_FREE_OF_SUSPICION_BYTES, leaf.packed * _MAX_MANIFEST_RATIO)
        if leaf.kind != "file" or leaf.size > MAX_MANIFEST_BYTES or bomb:
            raise VerificationFailed(f"{self.path}/{MANIFEST_NAME} is no manifest.")
        with leaf.open() as stream:
            return stream.read()

    def members(self) -> Iterator[Member]:
        for path, leaf in self.tree.below(self.relative):
            yield Member(path, leaf.kind, leaf.size, leaf.open)


class ZipLeaves(Mapping[str, Leaf]):
    """Entries of a zip file as leaves, each made when it is asked for: there are thousands.

    names: of the entries. below: the folder, with its slash, from which their paths count.
    """

    def __init__(self, file: ZipFile, names: Sequence[str], below: str = "") -> None:
        self._file = file
        self._names = names
        self._below = below

    def __getitem__(self, path: str) -> Leaf:
        entry = self._file.get(self._below + path)
        if entry is None or path not in self:
            raise KeyError(path)
        kind: Literal["file", "other"] = "file" if entry.is_file else "other"
        return Leaf(kind, entry.size, entry.compressed, lambda: self._file.open(entry))

    @cached_property
    def _paths(self) -> Mapping[str, None]:
        start = len(self._below)
        return dict.fromkeys([name[start:] for name in self._names] if start else self._names)

    def __contains__(self, path: object) -> bool:
        return path in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._names)


def zip_tree(file: ZipFile, path: str = "") -> Tree:
    """A zip file as a whole, such as a wheel. path: where it lies in what it is a part of."""
    names = [name for name in file.names if not name.endswith("/")]
    return Tree(path, ZipLeaves(file, names), file)


def folder_leaves(root: Path) -> dict[str, Leaf]:
    """The files below a folder; links, which pex makes, are read as what they point to."""
    leaves = {}
    for directory, _, names in os.walk(root, followlinks=False):
        below = Path(directory).relative_to(root)
        for name in names:
            leaves[(below / name).as_posix()] = _file_leaf(Path(directory, name))
    return leaves


def _file_leaf(path: Path) -> Leaf:
    try:
        status = path.stat()
    except OSError as error:
        raise InputOutputError(f"{path} cannot be read: {error.strerror}.") from error
    kind: Literal["file", "other"] = "file" if stat.S_ISREG(status.st_mode) else "other"
    return Leaf(kind, status.st_size, status.st_size, lambda: _open(path))


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputOutputError(f"{path} cannot be read: {error.strerror}.") from error
