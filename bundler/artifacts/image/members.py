"""The members of a state directory in a layer's tar stream, one after the other."""

from __future__ import annotations

import posixpath
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import BinaryIO, Literal

from bundler.artifacts.image.rootfs import Tree, absolute, content_of, read_tar
from bundler.errors import VerificationFailed
from bundler.state.artifact import Member
from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY

# Dagster makes a state directory with nothing but this when it loads a code location without one.
_IGNORE_FILE = ".gitignore"

# What a member is called below the state directory, and what it is.
_Name = tuple[str, Literal["file", "directory", "other"]]


def state_directories_in(tree: Tree, claimed: Sequence[str] = ()) -> list[str]:
    """Every state directory in a file system: the claimed ones that are there, and any other."""
    found = {
        path
        for path, node in tree.walk()
        if (posixpath.basename(path) == STATE_DIRECTORY and node.children.keys() - {_IGNORE_FILE})
        or MANIFEST_NAME in node.children
    }
    found |= {path for path in claimed if tree.lookup(path) is not None}
    return sorted(found)


def content_members(tree: Tree, top: str, stream: BinaryIO, layer: int) -> Iterator[Member]:
    """What a layer contributes to a directory, with its bytes while the stream passes by.

    A file of several names (hard links, as package installers make them) is given once a name.
    """
    names = _names(tree, top, layer)
    seen: set[str] = set()
    for archive, info in read_tar(stream):
        path = absolute(info.name)
        if path in seen and not info.isdir():
            # Whoever unpacks it sees the last one; what was judged would be another.
            raise VerificationFailed(f"A layer of the image holds {path} twice.")
        if path in names:
            seen.add(path)
        wanted = names.pop(path, [])
        if not info.isreg():
            yield from (Member(name, kind, 0, _nothing) for name, kind in wanted)
        elif len(wanted) == 1:
            yield Member(wanted[0][0], "file", info.size, _opener(archive, info))
        elif wanted:
            yield from _spooled(archive, info, [name for name, _ in wanted])


def members_below(
    stream: BinaryIO, top: str, others: Callable[[str, bool], object] = lambda *_: None
) -> Iterator[Member]:
    """The members of a tar stream that lie below a directory. top: that directory's path.

    others: is told of every other member: its path, and whether it is a directory.
    """
    root = absolute(top)
    seen: set[str] = set()
    for archive, info in read_tar(stream):
        path = absolute(info.name)
        if not path.startswith(f"{root}/"):
            if path != root:
                others(path, info.isdir())
            continue
        name = path[len(root) + 1 :]
        if name in seen and not info.isdir():
            raise VerificationFailed(f"The archive holds {path} twice.")
        seen.add(name)
        if info.isreg():
            yield Member(name, "file", info.size, _opener(archive, info))
        else:
            yield Member(name, "directory" if info.isdir() else "other", 0, _nothing)


def _names(tree: Tree, top: str, layer: int) -> dict[str, list[_Name]]:
    """For each member of the layer's stream: its names below the directory, and what they are."""
    names: dict[str, list[_Name]] = {}
    for path, node in tree.walk(top):
        if node.layer != layer:
            continue
        name = posixpath.relpath(path, top)
        if node.kind == "hardlink":
            names.setdefault(node.target, []).append((name, "file"))
        elif node.kind in ("file", "directory"):
            names.setdefault(path, []).insert(0, (name, node.kind))
        else:
            names.setdefault(path, []).insert(0, (name, "other"))
    return names


def _opener(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], BinaryIO]:
    return partial(content_of, archive, info)


def _spooled(
    archive: tarfile.TarFile, info: tarfile.TarInfo, names: Sequence[str]
) -> Iterator[Member]:
    with tempfile.NamedTemporaryFile() as copy, _opener(archive, info)() as source:
        while chunk := source.read(1024 * 1024):
            copy.write(chunk)
        copy.flush()
        for name in names:
            yield Member(name, "file", info.size, partial(_open, copy.name))


def _open(path: str) -> BinaryIO:
    return open(path, "rb")


def _nothing() -> BinaryIO:
    raise IsADirectoryError
