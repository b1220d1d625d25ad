"""A tree of files inside an artifact, in a folder or in a zip file.

Everything that can be on a program's import path is such a tree: the code at the top of a PEX, each
distribution in it, a wheel. State directories are found and read the same way in all.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

import msgspec

from bundler.artifacts.python.zipfiles import ZipFile
from bundler.errors import VerificationFailed
from bundler.state.artifact import Member
from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY
from bundler.state.directory import list_directory
from bundler.state.manifest import MAX_MANIFEST_BYTES
from bundler.state.tree import fold
from bundler.system.reading import reading

# Digests are hexadecimal, so no real manifest is ever compressed to a tenth of its size; a small
# entry that claims to be a huge manifest is an attack on our memory.
_MAX_MANIFEST_RATIO = 20
_IGNORE_NAME = ".gitignore"
_MAX_TEXT_BYTES = 64 * 1024 * 1024
_FREE_OF_SUSPICION_BYTES = 1024 * 1024
# The only link that pex makes in a folder.
_ALIAS, _ALIAS_OF = "pex", "__main__.py"


class Leaf(msgspec.Struct, frozen=True):
    """A file of a tree.

    size: in bytes. packed: its compressed size. mode: permission bits, None if the artifact has
    none.
    """

    kind: Literal["file", "other"]
    size: int
    packed: int
    open: Callable[[], BinaryIO]
    mode: int | None = None


class NewFile(msgspec.Struct, frozen=True):
    """A file to write. size: in bytes. mode: permission bits, None for the default."""

    open: Callable[[], BinaryIO]
    size: int
    sha256: str
    mode: int | None = None

    @classmethod
    def of(cls, data: bytes, mode: int | None = None) -> NewFile:
        digest = hashlib.sha256(data).hexdigest()
        return cls(lambda: io.BytesIO(data), len(data), digest, mode)


class TreeChange(msgspec.Struct, frozen=True):
    """The changes of a tree.

    added: files to write, by relative path. replaced: directories whose files are all removed
    first.
    """

    added: Mapping[str, NewFile] = {}
    replaced: tuple[str, ...] = ()

    def keeps(self, path: str) -> bool:
        """Whether an existing file stays unchanged."""
        return path not in self.added and not self.removes(path)

    def removes(self, path: str) -> bool:
        return any(path.startswith(f"{directory}/") for directory in self.replaced)

    def and_also(self, added: Mapping[str, NewFile]) -> TreeChange:
        return TreeChange({**self.added, **added}, self.replaced)


NO_CHANGE = TreeChange()


class Tree(msgspec.Struct, frozen=True, dict=True):
    """path: where the tree is in the artifact; empty for its top. leaves: by relative path. zip:
    the zip file that contains exactly this tree, such as a wheel; None for any other tree.
    folders: those that it names, by relative path; folders of files may be missing."""

    path: str
    leaves: Mapping[str, Leaf]
    zip: ZipFile | None = None
    folders: Sequence[str] = ()

    def at(self, relative: str) -> str:
        """The artifact's name for a path in this tree."""
        return f"{self.path}/{relative}" if self.path else relative

    @property
    def name(self) -> str:
        """Of a distribution."""
        return self.path.rpartition("/")[2]

    def changed(self, change: TreeChange = NO_CHANGE) -> dict[str, Callable[[], BinaryIO]]:
        """How to open each file of the changed tree."""
        files = {path: self.leaves[path].open for path in self.leaves if change.keeps(path)}
        files.update((path, file.open) for path, file in change.added.items())
        return files

    def read(self, path: str) -> bytes:
        """Reads a small file. Raises `VerificationFailed` if it is missing or too large."""
        leaf = self.leaves.get(path)
        if leaf is None or leaf.kind != "file" or leaf.size > _MAX_TEXT_BYTES:
            raise VerificationFailed(f"{self.at(path)} is missing or not plain text.")
        with leaf.open() as stream:
            return stream.read()

    def below(self, directory: str) -> Iterator[tuple[str, Leaf]]:
        """The files below a directory, by paths relative to it."""
        start = f"{directory}/"
        for path in self.leaves:
            if path.startswith(start):
                yield path[len(start) :], self.leaves[path]

    def state_directories(self) -> Iterator[TreeStateDirectory]:
        """Every directory with the name of a state directory, or with a manifest.

        Without the one that Dagster creates when it loads a code location without state.
        """
        return (TreeStateDirectory(self, directory) for directory in self._state_directories)

    @cached_property
    def _state_directories(self) -> Collection[str]:
        hints = (STATE_DIRECTORY, MANIFEST_NAME)
        likely = [path for path in self.leaves if hints[0] in path or hints[1] in path]
        return dict.fromkeys(filter(None, map(_state_directory_of, likely)))

    def has_state(self) -> bool:
        return bool(self._state_directories)

    def part(self, names: Sequence[str], path: str = "") -> Tree:
        """Some of its files and, with a slash, folders. path: of the folder they are all below."""
        start = len(path) + 1 if path else 0
        files = [name for name in names if name[-1] != "/"]
        folders = tuple(name[start:-1] for name in names if name[-1] == "/")
        return Tree(path, SomeLeaves(self.leaves, files, start), folders=folders)

    def twins_of(self, directory: str) -> Iterator[str]:
        """What would be in this directory on a file system that ignores case or Unicode form."""
        start, folded = f"{directory}/", f"{fold(directory)}/"
        for path in (*self.leaves, *self.folders):
            if fold(f"{path}/").startswith(folded) and not f"{path}/".startswith(start):
                yield path


def _state_directory_of(path: str) -> str | None:
    if path.endswith(f"{STATE_DIRECTORY}/{_IGNORE_NAME}"):
        return None
    if path.endswith(f"/{MANIFEST_NAME}"):
        return path[: -len(MANIFEST_NAME) - 1]
    before, found, _ = f"/{path}".partition(f"/{STATE_DIRECTORY}/")
    return f"{before}/{STATE_DIRECTORY}"[1:] if found else None


class TreeStateDirectory(msgspec.Struct, frozen=True):
    """A state directory in a tree. sha256_of: of a path in the tree, see `Member.sha256`."""

    tree: Tree
    relative: str
    sha256_of: Callable[[str], str | None] = lambda _: None

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
            raise VerificationFailed(f"{self.path}/{MANIFEST_NAME} is not a manifest.")
        with leaf.open() as stream:
            return stream.read()

    def members(self) -> Iterator[Member]:
        start = f"{self.relative}/"
        for folder in self.tree.folders:
            if folder.startswith(start):
                yield Member(folder[len(start) :], "directory", 0, _nothing)
        for path, leaf in self.tree.below(self.relative):
            sha256 = partial(self.sha256_of, start + path)
            yield Member(path, leaf.kind, leaf.size, leaf.open, leaf.mode, sha256)


def _nothing() -> BinaryIO:
    raise IsADirectoryError


class ZipLeaves(Mapping[str, Leaf]):
    """The files in a zip file as leaves, created on demand: there are thousands."""

    def __init__(self, file: ZipFile) -> None:
        self._file = file
        self._names = [name for name in file.names if name[-1] != "/"]

    def __getitem__(self, path: str) -> Leaf:
        entry = self._file.get(path)
        if entry is None or entry.is_directory:
            raise KeyError(path)
        kind: Literal["file", "other"] = "file" if entry.is_file else "other"
        mode = entry.permissions if entry.mode >> 16 else None
        return Leaf(kind, entry.size, entry.compressed, lambda: self._file.open(entry), mode)

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and path in self._file and path[-1] != "/"

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class SomeLeaves(Mapping[str, Leaf]):
    """Some of a tree's leaves. start: the length of the folder that their paths leave out."""

    def __init__(self, leaves: Mapping[str, Leaf], names: Sequence[str], start: int) -> None:
        self._leaves = leaves
        self._names = names
        self._start = start

    def __getitem__(self, path: str) -> Leaf:
        return self._leaves[self._paths[path]]

    @cached_property
    def _paths(self) -> Mapping[str, str]:
        return {name[self._start :]: name for name in self._names}

    def __contains__(self, path: object) -> bool:
        return path in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._names)


def prefixes(path: str) -> list[str]:
    """The folders above a path, outermost first, then the path itself."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def zip_tree(file: ZipFile, path: str = "") -> Tree:
    """A whole zip file, such as a wheel. path: within its container."""
    folders = tuple(name[:-1] for name in file.names if name[-1] == "/")
    return Tree(path, ZipLeaves(file), file, folders)


def folder_tree(root: Path) -> Tree:
    """A whole folder."""
    leaves: dict[str, Leaf] = {}
    folders = []
    for name, status in walk_folder(root):
        if stat.S_ISDIR(status.st_mode):
            folders.append(name)
        else:
            leaves[name] = _file_leaf(root / name, status)
    return Tree("", leaves, folders=tuple(folders))


def walk_folder(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file and folder below, sorted in each folder.

    Raises `VerificationFailed` for anything else: a link may lead to anything outside.
    """
    pending = [""]
    while pending:
        below = pending.pop()
        for child in sorted(list_directory(root / below), key=lambda child: child.name):
            path = f"{below}/{child.name}" if below else child.name
            status = child.stat(follow_symlinks=False)
            if (path, child.is_symlink()) == (_ALIAS, True) and os.readlink(child) == _ALIAS_OF:
                status = child.stat()
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
            elif not stat.S_ISREG(status.st_mode) or "\n" in path:  # which ends a line of a dirHash
                raise VerificationFailed(
                    f"{str(root / path)!r} is neither a regular file nor a directory, or its name "
                    "has two lines.",
                    hint="Replace a link with its target, and build again.",
                )
            yield path, status


def _file_leaf(path: Path, status: os.stat_result) -> Leaf:
    size, mode = status.st_size, stat.S_IMODE(status.st_mode)
    return Leaf("file", size, size, lambda: _open(path), mode)


def _open(path: Path) -> BinaryIO:
    with reading(path):
        return path.open("rb")
