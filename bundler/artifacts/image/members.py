"""The members of a state directory in a layer's tar stream, in order."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal

import msgspec

from bundler.artifacts.image.rootfs import RootFilesystem
from bundler.artifacts.image.tarstream import Kind, TarMember, absolute, read_tar
from bundler.errors import VerificationFailed
from bundler.state.artifact import Member
from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY

# Dagster creates a state directory with only this file when it loads a code location without one.
_IGNORE_FILE = ".gitignore"

# A member's name below the state directory, and the kind of its node.
_Name = tuple[str, Kind]


def state_directories_in(tree: RootFilesystem, claimed: Sequence[str] = ()) -> list[str]:
    """Every state directory in a file system: the claimed ones that exist, and any other."""
    found = {
        path
        for path, node in tree.walk(only_directories=True)  # a tenth of the nodes
        if (path.endswith(f"/{STATE_DIRECTORY}") and node.children.keys() - {_IGNORE_FILE})
        or MANIFEST_NAME in node.children
    }
    found |= {path for path in claimed if tree.lookup(path) is not None}
    return sorted(found)


def content_members(
    tree: RootFilesystem, top: str, stream: BinaryIO, layer: int
) -> Iterator[Member]:
    """What a layer contributes to a directory, with its bytes while the stream passes by.

    A file with several names (hard links, as package installers make them) is yielded once per
    name.
    """
    names = _names(tree, top, layer)
    seen: set[str] = set()
    for member in read_tar(stream):
        if member.path in seen and member.kind != "directory":
            # A program that unpacks it sees the last one; a different one would have been judged.
            raise VerificationFailed(f"A layer of the image contains {member.path} twice.")
        wanted = names.pop(member.path, [])
        if wanted:
            seen.add(member.path)
        if member.kind == "file" and len(wanted) > 1:
            yield from _spooled(member, [name for name, _ in wanted])
        else:
            for name, kind in wanted:
                # The tree has the last member of a name; an earlier one may be something else.
                found = _member(member, name)
                yield found if member.kind == kind else msgspec.structs.replace(found, kind="other")


def members_below(stream: BinaryIO, top: str) -> Iterator[Member]:
    """The members of a tar stream that are below a directory. top: that directory's path."""
    root = absolute(top)
    seen: set[str] = set()
    for member in read_tar(stream):
        path = member.path
        if not path.startswith(f"{root}/"):
            continue
        name = path[len(root) + 1 :]
        if name in seen and member.kind != "directory":
            raise VerificationFailed(f"The archive contains {path} twice.")
        seen.add(name)
        yield _member(member, name)


def _member(member: TarMember, name: str) -> Member:
    if member.kind == "file":
        return Member(name, "file", member.size, member.open, member.mode)
    kind: Literal["directory", "other"] = "directory" if member.kind == "directory" else "other"
    return Member(name, kind, 0, _nothing, member.mode)


def _names(tree: RootFilesystem, top: str, layer: int) -> dict[str, list[_Name]]:
    """For each member of the layer's stream: its names below the directory, and its node."""
    names: dict[str, list[_Name]] = {}
    above = len(top.rstrip("/")) + 1
    for path, node in tree.walk(top):
        if node.layer != layer:
            continue
        if node.kind == "hardlink":
            names.setdefault(node.target, []).append((path[above:], "file"))
        else:
            names.setdefault(path, []).insert(0, (path[above:], node.kind))
    return names


def _spooled(member: TarMember, names: Sequence[str]) -> Iterator[Member]:
    with tempfile.NamedTemporaryFile() as copy, member.open() as source:
        shutil.copyfileobj(source, copy)
        copy.flush()

        def opened() -> BinaryIO:
            return open(copy.name, "rb")

        for name in names:
            yield Member(name, "file", member.size, opened, member.mode)


def _nothing() -> BinaryIO:
    raise VerificationFailed("A layer contains a directory or a link where a file is expected.")
