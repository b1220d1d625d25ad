"""Opens an image that lies in a store: what its layers add up to, and the state in it.

What counts is what the layers add up to, so that all of them would have to be read. But where the
topmost one is ours, hides all below it (an opaque whiteout) and holds every state that the label
names, then it alone decides, and only it is read.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from bundler.artifacts.image import image, image_import_path
from bundler.artifacts.image.blobs import (
    Descriptor,
    Store,
    descriptor,
    descriptors,
    images_of,
    read_json,
)
from bundler.artifacts.image.compression import Ended, Hashing, unpack, unpacked
from bundler.artifacts.image.layer import OPAQUE_WHITEOUT, parents_of
from bundler.artifacts.image.layout import Layout, open_store
from bundler.artifacts.image.members import content_members, members_below, state_directories_in
from bundler.artifacts.image.rootfs import Tree
from bundler.artifacts.names import ArtifactName, without_state
from bundler.errors import UsageError, VerificationFailed
from bundler.state.artifact import Member, StateDirectory
from bundler.state.bundle import MANIFEST_NAME, Bundle
from bundler.state.manifest import MAX_MANIFEST_BYTES, Claim, RunRecord

if TYPE_CHECKING:
    from typing_extensions import Self

# What Python calls a machine, and what Go does.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "AMD64": "amd64"}
# No layer of a program unpacks to so much; one that does only wants our time.
_FREE_OF_SUSPICION_BYTES = 1024**3
_MAX_RATIO = 200


def architecture() -> str:
    """This machine's, as images name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def choose(store: Layout, tag: str | None) -> Descriptor:
    """The entry of a tag; without one, the only image that there is, as it was updated last."""
    entries = descriptors(store.index().get("manifests"), store.name)
    found = [entry for entry in entries if tag is None or _is_called(entry, tag)]
    if tag is None and len({without_state(entry.tag or "") for entry in entries}) == 1:
        found = entries[-1:]
    if len(found) == 1:
        return found[0]
    tags = ", ".join(sorted(entry.tag or entry.digest for entry in entries)) or "none"
    what = f"the tag {tag!r}" if tag is not None else "one image"
    raise UsageError(
        f"{store.name} does not hold {what} but: {tags}.",
        hint=f"Name one: oci:{store.name}:TAG",
    )


def _is_called(entry: Descriptor, tag: str) -> bool:
    """In docker's archives a tag has its repository before it, and that its host."""
    own = entry.tag or ""
    return tag in (own, entry.digest) or own.endswith((f":{tag}", f"/{tag}"))


class LoadedImage:
    """One platform of an image: its manifest and configuration, and its layers on demand."""

    def __init__(self, store: Store, entry: Descriptor) -> None:
        self.store = store
        self.entry = entry
        self.manifest = read_json(store, entry)
        self.media_type = entry.media_type
        self.layers = descriptors(self.manifest.get("layers"), entry.digest)
        self.config = read_json(store, descriptor(self.manifest.get("config"), entry.digest))
        if len(image.diff_ids(self.config)) != len(self.layers):
            raise VerificationFailed(
                f"{entry.digest} in {store.name} has {len(self.layers)} layers, its configuration "
                f"names {len(image.diff_ids(self.config))}."
            )
        self._tree: Tree | None = None

    @property
    def layer_types(self) -> list[str]:
        return [layer.media_type for layer in self.layers]

    @property
    def tree(self) -> Tree:
        """What the layers add up to; reads all of them once."""
        if self._tree is None:
            self._tree = Tree()
            for position in range(len(self.layers)):
                with self.open_layer(position) as stream:
                    self._tree.apply(stream, position, image_import_path.captured)
        return self._tree

    def open_layer(self, position: int) -> BinaryIO:
        """A layer's unpacked tar stream."""
        entry = self.layers[position]
        most = max(_FREE_OF_SUSPICION_BYTES, entry.size * _MAX_RATIO)
        return cast("BinaryIO", Ended(unpacked(self.store.open(entry), most)))

    @contextmanager
    def checked_layer(self, position: int) -> Iterator[BinaryIO]:
        """Like `open_layer`; at the end raises `VerificationFailed` if a digest differs."""
        entry = self.layers[position]
        most = max(_FREE_OF_SUSPICION_BYTES, entry.size * _MAX_RATIO)
        with Hashing(self.store.open(entry)) as packed:
            stream, is_packed = unpack(cast("BinaryIO", packed), most)
            # The bytes of a layer that is not packed have one digest, and are hashed once.
            plain = Hashing(stream) if is_packed else None
            # Kept by a name: its end closes what is below.
            ended = Ended(stream if plain is None else cast("BinaryIO", plain))
            yield cast("BinaryIO", ended)
            diff_id = f"sha256:{plain.drain()}" if plain is not None else ""
            digest = f"sha256:{packed.drain()}"
            diff_id = diff_id or digest
        if digest != entry.digest or diff_id != image.diff_ids(self.config)[position]:
            raise VerificationFailed(
                f"The layer {entry.digest} in {self.store.name} is not what its digest says."
            )


class OciImage:
    """An image in a store, open for reading. Of several platforms, the one of this machine.

    platform: the manifest of another one. sealed: the bundles in layers, by path, whose digests are
    known to be those of the bytes that were made of them.
    """

    def __init__(
        self,
        store: Store,
        entry: Descriptor,
        name: str,
        kind: str = "oci",
        platform: Descriptor | None = None,
        *,
        sealed: Mapping[str, Mapping[str, Bundle]] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.digest: str | None = entry.digest
        self.entry = entry
        self.store = store
        self.is_one_of_several = platform is not None
        self.image = LoadedImage(store, platform or for_this_machine(store, entry))
        self.config_digest = self.image.manifest["config"]["digest"]
        top = self.image.layers[-1].digest if self.image.layers else ""
        self._sealed = (sealed or {}).get(top, {})

    def labels(self) -> Mapping[str, str]:
        return image.labels(self.image.config)

    def files_below(self) -> str:
        """A digest of its code: all but the state."""
        return image.files_below(self.image.config)

    def claims(self) -> Sequence[Claim] | None:
        return image.claims_of(image.labels(self.image.config))

    def run_record(self) -> RunRecord | None:
        return image.run_record_of(image.labels(self.image.config))

    def other_platforms(self) -> Iterator[OciImage]:
        """The other images of the index, but for those that have the same state and labels.

        None where one platform was named. Each is open as long as this one is.
        """
        if self.is_one_of_several:
            return
        for child in images_of(self.store, self.entry):
            if child.digest != self.image.entry.digest:
                platform = child.raw.get("platform") or {}
                said = "/".join(str(platform.get(part, "?")) for part in ("os", "architecture"))
                other = OciImage(self.store, self.entry, f"{self.name} ({said})", self.kind, child)
                if self._states() is None or self._states() != other._states():
                    yield other

    def _states(self) -> tuple[object, ...] | None:
        """What the state depends on: the topmost layer, if that holds all of it, and the labels."""
        claims = self.claims()
        if not image.last_layer_holds(self.image.config, [claim.path for claim in claims or ()]):
            return None
        return self.image.layers[-1].digest, claims, self.run_record()

    def state_directories(self) -> Sequence[StateDirectory]:
        claimed = sorted(claim.path for claim in self.claims() or ())
        if image.last_layer_holds(self.image.config, claimed):
            sealed = self._sealed
            return [_TopDirectory(self.image, path, claimed, sealed.get(path)) for path in claimed]
        return [
            _LayoutDirectory(self.image, path)
            for path in state_directories_in(self.image.tree, claimed)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.store.close()


def open_layout(path: Path | str, tag: str | None = None) -> OciImage:
    """Opens an image in a layout's folder or archive.

    Raises `VerificationFailed` for a malformed one, `UsageError` where the tag is not there or the
    layout holds several and none was named.
    """
    store = open_store(Path(path))
    try:
        name = ArtifactName("layout", str(path), tag)
        return OciImage(store, choose(store, tag), str(name))
    except BaseException:
        store.close()
        raise


def for_this_machine(store: Store, entry: Descriptor) -> Descriptor:
    """The manifest of this machine's platform, or the first where there is none."""
    children = images_of(store, entry)
    machine = architecture()
    mine = [
        child
        for child in children
        if (child.raw.get("platform") or {}).get("architecture") == machine
    ]
    return (mine or children)[0]


class _TopDirectory:
    """A state directory that the topmost layer holds, and that layer alone.

    sealed: its bytes are those of the bundle, by the digest of the layer.
    """

    def __init__(
        self, loaded: LoadedImage, path: str, all_paths: Sequence[str], bundle: Bundle | None
    ) -> None:
        self.path = path
        self.sealed = bundle is not None
        self._bundle = bundle
        self._image = loaded
        self._all_paths = all_paths
        self._position = len(loaded.layers) - 1

    def read_manifest(self) -> bytes | None:
        """Reads the layer up to the manifest, which lies near its beginning."""
        if self._bundle is not None:
            return self._bundle.manifest.raw
        with self._image.open_layer(self._position) as stream:
            for member in members_below(stream, self.path):
                if member.path == MANIFEST_NAME and member.kind == "file":
                    if member.size > MAX_MANIFEST_BYTES:
                        raise VerificationFailed(f"{self.path}/{MANIFEST_NAME} is too large.")
                    with member.open() as content:
                        return content.read()
        return None

    def members(self) -> Iterator[Member]:
        hides_all = self._position == 0
        with self._image.checked_layer(self._position) as stream:
            for member in members_below(stream, self.path, self._foreign):
                if member.path == OPAQUE_WHITEOUT:
                    hides_all = True
                else:
                    yield member
        if not hides_all:
            raise VerificationFailed(
                f"The state layer does not hide what other layers may have in {self.path}."
            )

    def _foreign(self, path: str, is_directory: bool) -> None:  # a callback's signature
        """What our layer holds outside of this directory: other ones, and parents."""
        if any(f"{path}/".startswith(f"{known}/") for known in self._all_paths):
            return
        if is_directory and any(path in parents_of(known) for known in self._all_paths):
            return
        raise VerificationFailed(f"The state layer holds {path}, which is no state.")


class _LayoutDirectory:
    """A state directory as the layers of an image add up to it."""

    def __init__(self, loaded: LoadedImage, path: str) -> None:
        self.path = path
        self._image = loaded

    def read_manifest(self) -> bytes | None:
        node = self._image.tree.lookup(f"{self.path}/{MANIFEST_NAME}")
        if node is None or node.kind != "file":
            return None
        if node.size > MAX_MANIFEST_BYTES:
            raise VerificationFailed(f"{self.path}/{MANIFEST_NAME} is too large.")
        with self._image.open_layer(node.layer) as stream:
            for member in self._members_of(node.layer, stream):
                if member.path == MANIFEST_NAME:
                    with member.open() as content:
                        return content.read()
        return None

    def members(self) -> Iterator[Member]:
        layers = {node.layer for _, node in self._image.tree.walk(self.path)} - {-1}
        for position in sorted(layers):
            with self._image.checked_layer(position) as stream:
                yield from self._members_of(position, stream)

    def _members_of(self, position: int, stream: BinaryIO) -> Iterator[Member]:
        return content_members(self._image.tree, self.path, stream, position)
