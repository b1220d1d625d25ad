"""The file system of an image: what its layers add up to.

A layer is a tar stream of what it adds; a member ``.wh.NAME`` takes NAME of the layers below away,
``.wh..wh..opq`` everything that the layers below have in its directory. See
https://github.com/opencontainers/image-spec/blob/main/layer.md.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, BinaryIO, Literal, cast

import msgspec

from bundler.artifacts.image.layer import OPAQUE_WHITEOUT, WHITEOUT_PREFIX
from bundler.errors import VerificationFailed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Kind = Literal["file", "directory", "symlink", "hardlink", "other"]

# Linux gives up after as many; a loop ends here.
_MAX_LINKS = 40
# A captured file is a password file or a list of import paths: longer ones are something else.
_MAX_CAPTURED_BYTES = 256 * 1024
# Long names and attributes; those that stand before a member, in tar's various dialects.
_EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_MAX_HEADER_BYTES = 1024 * 1024
# tarfile goes on skipping what a header promises where the stream has long ended.
_MAX_MEMBER_BYTES = 64 * 1024**3
_SKIP_BYTES = 256 * 1024


class Node(msgspec.Struct):
    """Something in the file system.

    target: of a symbolic link, or the absolute path that a hard link repeats. layer: the index of
    the layer that it comes from. content: where it was captured.
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


Capture = Callable[[str], bool]


def never(path: str) -> bool:
    """Captures nothing."""
    del path
    return False


class Tree:
    """The merged file system. Paths are absolute and normalised."""

    def __init__(self) -> None:
        self.root = Node("directory")

    def apply(self, stream: BinaryIO, layer: int, capture: Capture = never) -> None:
        """Puts a layer's unpacked tar stream on top.

        capture: which regular files to keep the bytes of, by path.
        Raises `VerificationFailed` for what is no tar stream or leads outside the root.
        """
        added: list[tuple[str, Node]] = []
        hidden: list[str] = []
        for info, content in members_of(stream, capture):
            path = absolute(info.name)
            folder, name = posixpath.split(path)
            if name == OPAQUE_WHITEOUT:
                self._empty(folder)
            elif name.startswith(WHITEOUT_PREFIX):
                hidden.append(posixpath.join(folder, name[len(WHITEOUT_PREFIX) :]))
            else:
                added.append((path, _node(info, layer, content)))
        for path in hidden:
            self._remove(path)
        for path, node in added:
            self._add(path, node)

    def lookup(self, path: str) -> Node | None:
        """What has exactly this path; no link is followed."""
        node: Node | None = self.root
        for part in _parts(path):
            node = node.children.get(part) if node is not None else None
        return node

    def is_directory(self, path: str) -> bool:
        node = self.lookup(path)
        return node is not None and node.kind == "directory"

    def resolve(self, path: str) -> str | None:
        """The path with every symbolic link in it followed; None where it leads nowhere."""
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

    def walk(self, top: str = "/") -> Iterator[tuple[str, Node]]:
        """Everything below a directory, parents before children, sorted by name."""
        node = self.lookup(top)
        pending = [(top, node)] if node is not None else []
        while pending:
            path, node = pending.pop()
            children = sorted(node.children.items(), reverse=True)
            pending += [(posixpath.join(path, name), child) for name, child in children]
            if path != top:
                yield path, node

    def _add(self, path: str, node: Node) -> None:
        folder, name = posixpath.split(path)
        if not name:
            self.root.mode, self.root.uid, self.root.gid = node.mode, node.uid, node.gid
            return
        parent = self._directory(folder)
        before = parent.children.get(name)
        if before is not None and before.kind == node.kind == "directory":
            node.children = before.children
        parent.children[name] = node

    def _directory(self, path: str) -> Node:
        """The directory at a path, made where the layer has left it out."""
        node = self.root
        for part in _parts(path):
            child = node.children.get(part)
            if child is None or child.kind != "directory":
                child = node.children[part] = Node("directory")
            node = child
        return node

    def _remove(self, path: str) -> None:
        parent = self.lookup(posixpath.dirname(path))
        if parent is not None:
            parent.children.pop(posixpath.basename(path), None)

    def _empty(self, path: str) -> None:
        node = self.lookup(path)
        if node is not None:
            node.children = {}


def members_of(
    stream: BinaryIO, capture: Capture = never
) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """The members of a tar stream, each with its bytes where it is captured."""
    for archive, info in read_tar(stream):
        content = None
        if info.isreg() and info.size <= _MAX_CAPTURED_BYTES and capture(absolute(info.name)):
            content = content_of(archive, info).read()
        yield info, content


class _Bounded(tarfile.TarInfo):
    """Refuses a header that claims to be huge: such a one is read into memory as a whole."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > _MAX_HEADER_BYTES:
            raise VerificationFailed("A layer holds a header that is too large.")
        # The one place where tarfile has read a header and not yet what belongs to it.
        processed: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # not in typeshed
        if processed.size > _MAX_MEMBER_BYTES:
            raise VerificationFailed(f"A layer holds {processed.name!r}, which cannot be so large.")
        return processed


def read_tar(stream: BinaryIO) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members of a tar stream one after the other, in flat memory.

    Raises `VerificationFailed` for what is no tar stream, or is cut.
    """
    try:
        forward = cast("BinaryIO", _Forward(stream))
        with tarfile.open(fileobj=forward, mode="r:", tarinfo=_Bounded) as archive:
            while (info := archive.next()) is not None:
                yield archive, info
                # It keeps every member for random access, which a stream does not have.
                archive.members = []  # type: ignore[attr-defined]  # typeshed leaves it out
    except tarfile.TarError as error:
        raise VerificationFailed(f"A layer is no tar archive: {error}.") from error


class _Forward:
    """A stream that knows where it is, which is all that tarfile needs to go forward in it.

    Its own reader of streams copies all bytes three times.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._read = stream.read
        self._at = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self._at += len(data)
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        if position < self._at:
            raise tarfile.StreamError("seeking backwards is not allowed")
        while self._at < position and self.read(min(_SKIP_BYTES, position - self._at)):
            pass


def content_of(archive: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    """The bytes of the member that the stream has come to.

    Reading raises `VerificationFailed` where the stream ends before them.
    """
    source = archive.extractfile(info)
    if source is None:
        raise VerificationFailed(f"A layer holds {info.name}, which has no bytes of its own.")
    return io.BufferedReader(_Content(source))


class _Content(io.RawIOBase):
    """A member's bytes; a cut stream is a damaged layer."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__()
        # tarfile's own streams have it, though typeshed does not say so.
        self._fill: Callable[[WriteableBuffer], int] = source.readinto  # type: ignore[attr-defined]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return self._fill(buffer)
        except tarfile.TarError as error:
            raise VerificationFailed(f"A layer is no tar archive: {error}.") from error


def absolute(name: str) -> str:
    """A member's name as an absolute path. Raises `VerificationFailed` for one with ``..``."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise VerificationFailed(f"A layer holds {name!r}, which leads outside the image.")
    return "/" + "/".join(parts)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _node(info: tarfile.TarInfo, layer: int, content: bytes | None) -> Node:
    kind = kind_of(info)
    target = absolute(info.linkname) if kind == "hardlink" else info.linkname
    return Node(kind, info.mode & 0o7777, info.uid, info.gid, info.size, target, layer, content)


def kind_of(info: tarfile.TarInfo) -> Kind:
    if info.isdir():
        return "directory"
    if info.issym():
        return "symlink"
    if info.islnk():
        return "hardlink"
    return "file" if info.isreg() else "other"
