"""The file system of an image: the sum of its layers.

A layer is a tar stream of additions; a member ``.wh.NAME`` removes NAME of the layers below,
``.wh..wh..opq`` everything in its directory in the layers below. See
https://github.com/opencontainers/image-spec/blob/main/layer.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, BinaryIO

import msgspec

from bundler.artifacts.image.layer import OPAQUE_WHITEOUT, WHITEOUT_PREFIX, parents_of
from bundler.artifacts.image.tarstream import Kind, TarMember, absolute, read_tar
from bundler.errors import VerificationFailed

# Linux follows no more links than this; a loop ends here.
_MAX_LINKS = 40
# No image has this many files; each needs memory.
_MAX_NODES = 3_000_000
# The children of anything but a directory.
_NOTHING: Any = MappingProxyType({})


class Node(msgspec.Struct):
    """An entry of the file system.

    target: of a symbolic link, or the absolute path that a hard link repeats. layer: the index of
    the layer that it comes from. content: what was captured of its bytes.
    """

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    target: str = ""
    layer: int = -1
    content: bytes | None = None
    children: dict[str, Node] = msgspec.field(default_factory=dict)


Capture = Callable[[str, TarMember], bytes | None]


class RootFilesystem:
    """The merged file system. Paths are absolute and normalised."""

    lists = True

    def __init__(self) -> None:
        self.root = Node("directory")
        self._count = 0
        # By path: what programs that unpack the layers may do differently.
        self._doubts: dict[str, str] = {}

    def apply(self, stream: BinaryIO, layer: int, capture: Capture | None = None) -> None:
        """Applies a layer's uncompressed tar stream.

        capture: what to keep of a file's bytes; nothing by default. Raises `VerificationFailed` for
        anything that is not a tar stream or leads outside the root.
        """
        added: dict[str, Node] = {}
        hidden: list[str] = []
        for member in read_tar(stream):
            path = member.path
            folder, _, name = path.rpartition("/")
            if f"/{WHITEOUT_PREFIX}" in folder:
                raise VerificationFailed(f"A layer contains {path}, below a path that it removes.")
            if not name.startswith(WHITEOUT_PREFIX):
                is_kept = capture is not None and member.kind == "file"
                content = capture(path, member) if capture and is_kept else None
                self._take(added, path, node_of(member, content, layer))
                continue
            self._doubt_links(path, folder)
            if name == OPAQUE_WHITEOUT:
                self._empty(folder)
            else:
                removed = name.removeprefix(WHITEOUT_PREFIX)
                if removed in ("", ".", ".."):
                    raise VerificationFailed(f"A layer contains {path}, which removes no file.")
                hidden.append(f"{folder}/{removed}")
        for path in hidden:
            self._remove(path)
            if path in added:
                self._doubts[path] = "one layer both adds and removes it"
        self._add_all(added)

    def _take(self, added: dict[str, Node], path: str, node: Node) -> None:
        self._refuse_more()
        before = added.pop(path, None)  # the later one counts, and follows
        if before is not None and not before.kind == node.kind == "directory":
            self._doubts[path] = "one layer contains it twice"
        if node.kind == "hardlink" and node.target not in added:
            self._doubts[path] = "it is a link to something that its own layer does not contain"
        added[path] = node

    def _refuse_more(self) -> None:
        self._count += 1
        if self._count > _MAX_NODES:
            raise VerificationFailed(f"The image has more than {_MAX_NODES} files.")

    def _doubt_links(self, path: str, folder: str) -> None:
        """Some programs put a member below a link at the link's target, others replace the link."""
        node = self.root
        for part in _parts(folder):
            child = node.children.get(part)
            if child is None:
                return
            if child.kind != "directory":
                break
            node = child
        else:
            return
        name = path.rpartition("/")[2]
        for place in (path, f"{self.resolve(folder) or folder}/{name}"):
            self._doubts[place] = "its folder is not a folder in a layer below"

    def doubts(self, paths: Iterable[str]) -> Iterator[str]:
        """Why the entries at, above and below these paths are uncertain, as messages."""
        wanted = set(paths)
        for top in list(wanted):
            wanted.update(node.target for _, node in self.walk(top) if node.kind == "hardlink")
        above = {parent for path in wanted for parent in parents_of(path)}
        for doubt, why in self._doubts.items():
            if doubt in above or not wanted.isdisjoint((doubt, *parents_of(doubt))):
                yield f"The content of {doubt} depends on what unpacks the image: {why}."

    def lookup(self, path: str) -> Node | None:
        """The node at exactly this path; follows no link."""
        node: Node | None = self.root
        for part in _parts(path):
            node = node.children.get(part) if node is not None else None
        return node

    def fetch(self, paths: Sequence[str]) -> None:
        """Does nothing: everything has been read."""

    def is_directory(self, path: str) -> bool:
        node = self.lookup(path)
        return node is not None and node.kind == "directory"

    def resolve(self, path: str) -> str | None:
        """The path with every symbolic link followed; None if it leads nowhere."""
        pending = list(reversed(_parts(path)))
        real: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                real[-1:] = []
                continue
            node = self.lookup("/".join([*real, part]))
            if node is None:
                return None
            if node.kind != "symlink":
                real.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            if node.target.startswith("/"):
                real = []
            pending += reversed(_parts(node.target))
        return "/" + "/".join(real)

    def walk(self, top: str = "/", *, only_directories: bool = False) -> Iterator[tuple[str, Node]]:
        """Everything below a directory, parents before children, sorted by name."""
        node = self.lookup(top)
        pending = [(top, node)] if node is not None else []
        while pending:
            path, node = pending.pop()
            children = [
                (name, child)
                for name, child in node.children.items()
                if not only_directories or child.kind == "directory"
            ]
            above = path.rstrip("/")
            pending += [(f"{above}/{name}", child) for name, child in sorted(children)[::-1]]
            if path != top:
                yield path, node

    def _add_all(self, added: Mapping[str, Node]) -> None:
        known: str | None = None  # most members follow another of the same folder
        siblings: dict[str, Node] = {}
        for path, node in added.items():
            folder, _, name = path.rpartition("/")
            if not name:
                self.root.mode, self.root.uid, self.root.gid = node.mode, node.uid, node.gid
                continue
            if folder != known:
                self._doubt_links(path, folder)
                known, siblings = folder, self._directory(folder).children
            before = siblings.get(name)
            if before is not None and before.kind == node.kind == "directory":
                node.children = before.children
            siblings[name] = node
            if before is not None or node.kind != "file":
                known = None

    def _directory(self, path: str) -> Node:
        """The directory at a path; created if the layer has left it out."""
        node = self.root
        for part in _parts(path):
            child = node.children.get(part)
            if child is None or child.kind != "directory":
                self._refuse_more()
                child = node.children[part] = Node("directory")
            node = child
        return node

    def _remove(self, path: str) -> None:
        parent = self.lookup(posixpath.dirname(path))
        if parent is not None and parent.kind == "directory":
            parent.children.pop(posixpath.basename(path), None)

    def _empty(self, path: str) -> None:
        node = self.lookup(path)
        if node is not None and node.kind == "directory":
            node.children = {}


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def node_of(member: TarMember, content: bytes | None = None, layer: int = -1) -> Node:
    kind = member.kind
    target = absolute(member.target) if kind == "hardlink" else member.target
    below: dict[str, Node] = {} if kind == "directory" else _NOTHING
    return Node(
        kind, member.mode, member.uid, member.gid, member.size, target, layer, content, below
    )
