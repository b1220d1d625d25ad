"""The layer: one tar stream that puts state directories into an image, always the same bytes.

A layer holds, in this order for each state directory: its parents with the owner and mode that
they have in the base (a layer that left them out or invented them would change them), the state
directory, an opaque whiteout (so that nothing of an earlier state shines through), and every file
of the bundle. Files belong to root and are readable by everyone; what the manifest declares
writable belongs to the image's user, in group 0, so that an arbitrary user of that group
(Kubernetes, OpenShift) can write as well. All times are 0.

The stream's sha256 is the layer's *diff_id*; the sha256 of its packed form is its *digest*.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from bundler.artifacts.image.compression import Compression, compressed
from bundler.artifacts.image.tarstream import TarReader
from bundler.errors import ConfigurationError, VerificationFailed
from bundler.state.bundle import Bundle, BundleMember
from bundler.system.readable import Readable

if TYPE_CHECKING:
    from hashlib import _Hash

OPAQUE_WHITEOUT = ".wh..wh..opq"
WHITEOUT_PREFIX = ".wh."

_BLOCK = 512
END = b"\0" * (2 * _BLOCK)
_CHUNK_BYTES = 256 * 1024
# Enough for a header and what may precede it.
_MAX_SHOWN_BYTES = 16 * 1024
_AGAIN = "Another program wrote to it. Embed the state again."


class Owned(msgspec.Struct, frozen=True, array_like=True):
    """A directory of the base image: absolute path, permission bits, numeric owner and group.

    A label holds it as an array of the four.
    """

    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


class Placed(msgspec.Struct, frozen=True):
    """A bundle and its state directory in the image.

    path: absolute, without symbolic links. parents: from the outermost on, without ``/``.
    """

    bundle: Bundle
    path: str
    parents: tuple[Owned, ...]

    def __post_init__(self) -> None:
        names = self.path.split("/")
        if names[0] or any(name in ("", ".", "..") for name in names[1:]):
            raise ConfigurationError(
                f"{self.path!r} is not an absolute path in an image.",
                hint="Write the whole path, such as /app/shop/defs/.local_defs_state.",
            )


def parents_of(path: str) -> tuple[str, ...]:
    """``/app/src/x`` has the parents ``/app`` and ``/app/src``."""
    parts = path.strip("/").split("/")[:-1]
    return tuple("/" + "/".join(parts[: end + 1]) for end in range(len(parts)))


class Written(msgspec.Struct, frozen=True):
    """A layer that was written. diff_id and digest: sha256 in hexadecimal; size: of the blob."""

    diff_id: str
    digest: str
    size: int


class LayerEntry(msgspec.Struct, frozen=True):
    """A member of the tar stream; path without a leading slash."""

    path: str
    mode: int
    uid: int = 0
    gid: int = 0
    content: BundleMember | None = None
    directory: bool = False

    def header(self) -> bytes:
        info = tarfile.TarInfo(self.path)
        info.mode, info.uid, info.gid = self.mode, self.uid, self.gid
        info.type = tarfile.DIRTYPE if self.directory else tarfile.REGTYPE
        info.size = self.content.size if self.content else 0
        return info.tobuf(tarfile.PAX_FORMAT)

    @property
    def padded_size(self) -> int:
        return -(-self.content.size // _BLOCK) * _BLOCK if self.content else 0


class Layer(msgspec.Struct, frozen=True):
    """Bundles at their places.

    user: the numeric user that the image runs as. opaque: whether to hide the base's contents of
    the state directories; off if there is no base. chosen: whether the user named a place.
    moved_from: see `image.moved_from`.
    """

    placed: tuple[Placed, ...]
    user: int = 0
    opaque: bool = True
    chosen: bool = False
    moved_from: tuple[str, ...] = ()

    def size(self) -> int:
        """The size of the unpacked tar stream, in bytes; reads no file."""
        entries = self.entries()
        return sum(len(entry.header()) + entry.padded_size for entry in entries) + len(END)

    def packed(
        self, compression: Compression, finished: Callable[[Written], object]
    ) -> Iterator[bytes]:
        """The blob in pieces, made in constant memory.

        finished: called with the digest and size at the end. Raises `VerificationFailed` if a file
        no longer matches the manifest.
        """
        diff_id, digest = hashlib.sha256(), hashlib.sha256()
        size = 0
        for blob in compressed(_hashed(self.pieces(), diff_id), compression):
            size += len(blob)
            if compression != "none":
                digest.update(blob)
            if blob:
                yield blob
        digest = diff_id if compression == "none" else digest
        finished(Written(diff_id.hexdigest(), digest.hexdigest(), size))

    def pieces(self) -> Iterator[bytes]:
        """The uncompressed tar stream."""
        for entry in self.entries():
            yield entry.header()
            if entry.content is not None:
                with entry.content.open() as stream:
                    while chunk := stream.read(_CHUNK_BYTES):
                        yield chunk
                yield b"\0" * (entry.padded_size - entry.content.size)
        yield END

    def compare(self, stream: BinaryIO) -> Iterator[tuple[str, Content]]:
        """Compares an uncompressed tar stream with this layer, without reading the bundles' files.

        Yields each file's path in the image and its bytes, which are not compared; they are valid
        until the next one is requested. Raises `VerificationFailed` at the first other difference.
        """
        for entry in self.entries():
            header = entry.header()
            found = stream.read(len(header))
            if found != header:
                raise _other_than(entry.path, found, stream)
            if entry.content is not None:
                content = Content(stream, entry.content.size)
                yield f"/{entry.path}", content
                content.drain()
                padding = entry.padded_size - entry.content.size
                if stream.read(padding) != bytes(padding):
                    raise _altered(entry.path)
        found = stream.read(len(END) + 1)
        if found != END:
            raise _other_than("", found, stream)

    def entries(self) -> Iterator[LayerEntry]:
        """The members of the tar stream, in their order."""
        emitted: set[str] = set()
        for placed in sorted(self.placed, key=lambda placed: placed.path.encode()):
            for above in placed.parents:
                if above.path not in emitted:
                    emitted.add(above.path)
                    path = above.path.lstrip("/")
                    yield LayerEntry(path, above.mode, above.uid, above.gid, directory=True)
            yield from self._state_directory(placed)

    def _state_directory(self, placed: Placed) -> Iterator[LayerEntry]:
        root = placed.path.lstrip("/")
        yield LayerEntry(root, 0o755, directory=True)
        if self.opaque:
            yield LayerEntry(f"{root}/{OPAQUE_WHITEOUT}", 0o644)
        states = placed.bundle.manifest.states
        writable = [f"{state.path}/{path}" for state in states for path in state.writable]
        members = {member.path: member for member in placed.bundle.members()}
        below = [*members, *(f"{path}/." for path in writable)]
        directories = {above[1:] for path in below for above in parents_of(path)}
        for path in sorted(members.keys() | directories, key=str.encode):
            member = members.get(path)
            mode, user = (0o644 if member else 0o755), 0
            if any(path == above or path.startswith(f"{above}/") for above in writable):
                mode, user = (0o664 if member else 0o775), self.user
            yield LayerEntry(f"{root}/{path}", mode, user, 0, member, directory=member is None)


def _other_than(expected: str, found: bytes, rest: BinaryIO) -> VerificationFailed:
    """What is in the place of the expected member, as far as it is readable; "" at the end."""
    if expected.endswith(f"/{OPAQUE_WHITEOUT}"):
        folder = expected.rpartition("/")[0]
        what = f"The state layer does not hide what other layers contain in /{folder}."
        return VerificationFailed(what, hint=_AGAIN)
    whole = io.BytesIO(found + rest.read(_MAX_SHOWN_BYTES))
    with suppress(VerificationFailed):
        member = TarReader(whole, "The state layer").next()
        if member is not None and member.path != f"/{expected}":
            belongs = f"where /{expected} belongs" if expected else "which is not part of a state"
            what = f"The state layer contains {member.path}, {belongs}."
            return VerificationFailed(what, hint=_AGAIN)
    return _altered(expected)


def _altered(path: str) -> VerificationFailed:
    what = f"/{path} is not what was embedded" if path else "It continues after the last state"
    return VerificationFailed(f"The state layer was altered. {what}.", hint=_AGAIN)


class Content(Readable):
    """A file's bytes in a stream. left: how many are still to be read."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__(self._read)
        self._stream = stream
        self.left = size

    def _read(self, buffer: memoryview) -> int:
        data = self._stream.read(min(len(buffer), self.left))
        if not data and self.left:
            raise VerificationFailed("The state layer is truncated.")
        buffer[: len(data)] = data
        self.left -= len(data)
        return len(data)


def _hashed(pieces: Iterable[bytes], digest: _Hash) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece
