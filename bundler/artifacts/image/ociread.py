"""Opens an image in a store: the sum of its layers, and the state in it.

In general all layers have to be read to know their sum. But if the labels say that the topmost
layer is ours and contains every state, the layer is recreated from the manifests in it and compared
byte by byte: it then hides everything below, and only it is read.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from bundler.artifacts.image import image, image_import_path
from bundler.artifacts.image.blobs import (
    BlobStore,
    Descriptor,
    Platform,
    descriptor,
    descriptors,
    images_of,
    read_json,
    read_manifest,
)
from bundler.artifacts.image.compression import Allowance, Hashing, unpack
from bundler.artifacts.image.examining import (
    ImageArtifact,
    ImageStateDirectory,
    examined,
    unreachable,
)
from bundler.artifacts.image.layer import OPAQUE_WHITEOUT
from bundler.artifacts.image.layout import Layout, entries_of, open_store
from bundler.artifacts.image.members import content_members, state_directories_in
from bundler.artifacts.image.rootfs import RootFilesystem
from bundler.artifacts.image.tarstream import read_tar
from bundler.artifacts.names import ArtifactName, without_state
from bundler.errors import UsageError, VerificationFailed
from bundler.state.artifact import Member, StateDirectory
from bundler.state.bundle import MANIFEST_NAME
from bundler.state.manifest import MAX_MANIFEST_BYTES, Manifest

# Python's names of machines, and Go's.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "AMD64": "amd64"}
# Linux stacks at most this many file systems.
_MAX_LAYERS = 500
_MOST_SHOWN = 20


def architecture() -> str:
    """This machine's architecture, as images name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def choose(store: Layout, tag: str | None) -> Descriptor:
    """The entry with a tag; without a tag, the only image, as it was updated last."""
    entries = entries_of(store)
    found = [entry for entry in entries if tag is None or _is_called(entry, tag)]
    if tag is None and len({without_state(entry.tag or "") for entry in entries}) == 1:
        found = entries[-1:]
    if len({entry.digest for entry in found}) == 1:  # an image may have several tags
        return found[-1]
    names = sorted({entry.tag or entry.digest for entry in entries})
    shown = [*names[:_MOST_SHOWN], "…"] if len(names) > _MOST_SHOWN else names
    tags = ", ".join(shown) or "none"
    what = f"the tag {tag!r}" if tag is not None else "one image"
    raise UsageError(
        f"{store.name} does not contain {what}; its tags: {tags}.",
        hint=f"Select one: oci:{store.name}:TAG",
    )


def _is_called(entry: Descriptor, tag: str) -> bool:
    """In docker's archives a tag is preceded by its repository and host."""
    own = entry.tag or ""
    return tag in (own, entry.digest) or own.endswith((f":{tag}", f"/{tag}"))


class LoadedImage:
    """One platform of an image: its manifest and configuration, and its layers on demand."""

    def __init__(self, store: BlobStore, entry: Descriptor) -> None:
        self.store = store
        self.entry = entry
        self.manifest = read_manifest(store, entry)
        self.layers = descriptors(self.manifest.get("layers"), entry.digest)
        self.config = read_json(store, descriptor(self.manifest.get("config"), entry.digest))
        image.check_configuration(self.config, f"The configuration of {entry.digest}")
        if len(image.diff_ids(self.config)) != len(self.layers):
            raise VerificationFailed(
                f"{entry.digest} in {store.name} has {len(self.layers)} layers, its configuration "
                f"names {len(image.diff_ids(self.config))}."
            )
        if len(self.layers) > _MAX_LAYERS:
            raise VerificationFailed(
                f"{entry.digest} in {store.name} has {len(self.layers)} layers, more than any "
                "engine supports."
            )

    @cached_property
    def tree(self) -> RootFilesystem:
        """The sum of the layers; reads all of them once."""
        tree = RootFilesystem()
        sizes = {layer.digest: layer.size for layer in self.layers}
        allowed = Allowance.for_packed(sum(sizes.values()))
        for position in range(len(self.layers)):
            with self.checked_layer(position, allowed) as stream:
                tree.apply(stream, position, image_import_path.captured)
        return tree

    def open_layer(self, position: int) -> BinaryIO:
        """A layer's uncompressed tar stream, not checked against its digest."""
        entry = self.layers[position]
        return unpack(self.store.open(entry), Allowance.for_packed(entry.size))[0]

    @contextmanager
    def checked_layer(self, position: int, allowed: Allowance | None = None) -> Iterator[BinaryIO]:
        """Like `open_layer`, but raises `VerificationFailed` at the end if a digest differs.

        allowed: how much may be decompressed.
        """
        entry = self.layers[position]
        with Hashing(self.store.open(entry)) as packed:
            allowed = allowed or Allowance.for_packed(entry.size)
            stream, is_packed = unpack(cast("BinaryIO", packed), allowed)
            # The bytes of an uncompressed layer have only one digest, and are hashed once.
            plain = Hashing(stream) if is_packed else packed
            # Bound to a name: closing it closes the stream below.
            whole = plain.buffered() if is_packed else stream
            yield whole
            diff_id, digest = plain.whole_digest(), packed.whole_digest()
        if digest != entry.digest or diff_id != image.diff_ids(self.config)[position]:
            raise VerificationFailed(
                f"The layer {entry.digest} in {self.store.name} does not match its digest."
            )


class OciImage(ImageArtifact):
    """An image in a store, open for reading. Of several platforms, the one of this machine.

    platform: the manifest of another one. sealed: digests of layers that the store has confirmed
    and that were made from the states' bytes.
    """

    def __init__(
        self,
        store: BlobStore,
        entry: Descriptor,
        name: str,
        kind: str = "oci",
        platform: Descriptor | None = None,
        *,
        sealed: Collection[str] = (),
    ) -> None:
        self.name = name
        self.kind = kind
        self.digest = entry.digest
        self.entry = entry
        self.store = store
        self.is_one_of_several = platform is not None
        self.image = LoadedImage(store, platform or for_this_machine(store, entry))
        self.config = self.image.config
        self._top = self.image.layers[-1].digest if self.image.layers else ""
        self._sealed_layers = sealed
        if self._top in sealed:
            self.proof = f"layer {self._top} confirmed by the registry"
        # Platforms usually share their state layer, which is read once.
        self._state_layers: dict[tuple[str, ...], StateLayer] = {}
        self._is_other = False

    def other_platforms(self) -> Iterator[OciImage]:
        """The other images of the index, except those with the same state and labels.

        None if one platform was named. Each is open as long as this one is.
        """
        if self.is_one_of_several:
            return
        for child in images_of(self.store, self.entry):
            if child.digest != self.image.entry.digest:
                platform = child.platform or Platform()
                name = f"{self.name} ({platform.os}/{platform.architecture})"
                sealed = self._sealed_layers
                other = OciImage(self.store, self.entry, name, self.kind, child, sealed=sealed)
                other._state_layers, other._is_other = self._state_layers, True
                yield other

    def state_directories(self) -> Sequence[StateDirectory]:
        layer = self._state_layer()
        if layer is not None:
            is_sealed = self._top in self._sealed_layers
            return [
                ImageStateDirectory(
                    path,
                    partial(layer.read_manifest, path),
                    partial(layer.members, path),
                    sealed=is_sealed or (self._is_other and path in layer.compared),
                )
                for path in layer.paths
            ]
        claimed = [claim.path for claim in self.claims() or ()]
        return [
            ImageStateDirectory(
                path, partial(self._read_manifest, path), partial(self._members, path)
            )
            for path in state_directories_in(self.image.tree, claimed)
        ]

    # --- a state directory as the sum of all layers

    def _read_manifest(self, directory: str) -> bytes | None:
        path = f"{directory}/{MANIFEST_NAME}"
        node = self.image.tree.lookup(path)
        if node is None or node.kind != "file":
            return None
        if node.size > MAX_MANIFEST_BYTES:
            raise VerificationFailed(f"{path} is too large.")
        with self.image.open_layer(node.layer) as stream:
            for member in content_members(self.image.tree, directory, stream, node.layer):
                if member.path == MANIFEST_NAME:
                    with member.open() as content:
                        return content.read()
        return None

    def _members(self, directory: str) -> Iterator[Member]:
        layers = {node.layer for _, node in self.image.tree.walk(directory)} - {-1}
        for position in sorted(layers):
            with self.image.checked_layer(position) as stream:
                yield from content_members(self.image.tree, directory, stream, position)

    # --- the layer that has nothing but states

    def _state_layer(self) -> StateLayer | None:
        """The topmost layer, if the labels say that it is ours and contains all states."""
        paths = sorted(claim.path for claim in self.claims() or ())
        if not image.last_layer_holds(self.config, paths):
            return None
        key = (
            self.image.layers[-1].digest,
            *(self.labels().get(name, "") for name in image.LABELS_OF_LAYER),
        )
        return self._state_layers.setdefault(key, StateLayer(self.image, paths))

    def problems(self, found: Mapping[str, Manifest]) -> Iterator[str]:
        """What is wrong with the image itself, as messages. found: its manifests, by path.

        All layers are read if something has changed since the state was embedded.
        """
        yield from image.annotation_problems(self.image.manifest, self.config)
        if image.volumes_of(self.config):
            yield from image.hidden_states(self.config, found, self.image.tree.resolve)
        yield from unreachable(self.config, found, lambda: self.image.tree)
        if self._state_layer() is None or not image.is_untouched(self.config):
            yield from examined(self.image.tree, self.config, found)

    def __exit__(self, *exc: object) -> None:
        self.store.close()


def open_layout(path: Path | str, tag: str | None = None) -> OciImage:
    """Opens an image in a layout's folder or archive.

    Raises `VerificationFailed` for a malformed one, `UsageError` if the tag is not there or the
    layout holds several and none was named.
    """
    store = open_store(Path(path))
    try:
        name = ArtifactName("layout", str(path), tag)
        return OciImage(store, choose(store, tag), str(name))
    except BaseException:
        store.close()
        raise


def for_this_machine(store: BlobStore, entry: Descriptor) -> Descriptor:
    """The manifest for this machine's platform, or the first if there is none."""
    children = images_of(store, entry)
    machine = architecture()
    mine = [child for child in children if (child.platform or Platform()).architecture == machine]
    return (mine or children)[0]


class StateLayer:
    """A topmost layer that contains the states and nothing else.

    It is recreated from the manifests in it, and compared byte by byte. compared: the directories
    whose members were.
    """

    def __init__(self, loaded: LoadedImage, paths: Sequence[str]) -> None:
        self.paths = paths
        self._image = loaded
        self._position = len(loaded.layers) - 1
        self._is_opaque = True
        self.compared: set[str] = set()

    @cached_property
    def manifests(self) -> Mapping[str, bytes]:
        """The manifests by their directories' paths; reads up to the last of them."""
        found: dict[str, bytes] = {}
        wanted = {f"{path}/{MANIFEST_NAME}": path for path in self.paths}
        whiteouts = {f"{path}/{OPAQUE_WHITEOUT}" for path in self.paths}
        with self._image.open_layer(self._position) as stream:
            for member in read_tar(stream, "The state layer"):
                whiteouts.discard(member.path)
                path = wanted.pop(member.path, None)
                if path is not None and member.kind == "file":
                    if member.size > MAX_MANIFEST_BYTES:
                        raise VerificationFailed(f"{member.path} is too large.")
                    found[path] = member.open().read()
                    if not wanted:
                        break
        # Only an image of the state alone has nothing to hide.
        self._is_opaque = self._position > 0 or not whiteouts
        return found

    def read_manifest(self, path: str) -> bytes | None:
        return self.manifests.get(path)

    def members(self, path: str) -> Iterator[Member]:
        """The files of one of the directories; compares the whole layer."""
        layer = image.recreated(self._image.config, self.manifests.get)
        if layer is None:
            raise VerificationFailed("The state layer has no manifest.")
        layer = msgspec.structs.replace(layer, opaque=self._is_opaque)
        with self._image.checked_layer(self._position) as stream:
            for name, content in layer.compare(stream):
                if name.startswith(f"{path}/"):
                    yield Member(name[len(path) + 1 :], "file", content.left, content.buffered)
        self.compared.add(path)
