"""Opens an image in an OCI layout or archive: what its layers add up to, and the state in it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from bundler.artifacts import Member, StateDirectory, image, place
from bundler.artifacts.compression import Hashing, unpacked
from bundler.artifacts.layout import (
    Descriptor,
    Store,
    descriptor,
    descriptors,
    open_store,
    read_json,
)
from bundler.artifacts.members import content_members, state_directories_in
from bundler.artifacts.rootfs import Tree
from bundler.bundle import MANIFEST_NAME
from bundler.errors import UsageError, VerificationFailed
from bundler.manifest import MAX_MANIFEST_BYTES, Claim, RunRecord

if TYPE_CHECKING:
    from typing_extensions import Self

_ATTESTATION = "vnd.docker.reference.type"
# What Python calls a machine, and what Go does.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "AMD64": "amd64"}


def architecture() -> str:
    """This machine's, as images name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def choose(store: Store, tag: str | None) -> Descriptor:
    """The entry of a tag, or the only entry that there is."""
    entries = descriptors(store.index().get("manifests"), store.name)
    found = [entry for entry in entries if tag is None or entry.tag == tag]
    if len(found) == 1:
        return found[0]
    tags = ", ".join(sorted(entry.tag or entry.digest for entry in entries)) or "none"
    what = f"the tag {tag!r}" if tag is not None else "one image"
    raise UsageError(
        f"{store.name} does not hold {what} but: {tags}.",
        hint=f"Name one: oci:{store.name}:TAG",
    )


def is_attestation(entry: Descriptor) -> bool:
    return _ATTESTATION in (entry.raw.get("annotations") or {})


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
                    self._tree.apply(stream, position, place.captured)
        return self._tree

    def open_layer(self, position: int) -> BinaryIO:
        """A layer's unpacked tar stream."""
        return unpacked(self.store.open_blob(self.layers[position].digest))

    def check_layer(self, position: int) -> None:
        """Raises `VerificationFailed` where a layer is not what the image says of it."""
        entry = self.layers[position]
        with self.store.open_blob(entry.digest) as blob:
            packed = Hashing(blob)
            plain = Hashing(unpacked(cast("BinaryIO", packed)))
            diff_id = f"sha256:{plain.drain()}"
            digest = f"sha256:{packed.drain()}"
        if digest != entry.digest or diff_id != image.diff_ids(self.config)[position]:
            raise VerificationFailed(
                f"The layer {entry.digest} in {self.store.name} is not what its digest says."
            )


class LayoutImage:
    """An image in a layout, open for reading. Of several platforms, the one of this machine."""

    kind = "oci"

    def __init__(self, store: Store, entry: Descriptor, name: str) -> None:
        self.name = name
        self.digest: str | None = entry.digest
        self._store = store
        self._image = LoadedImage(store, _for_this_machine(store, entry))
        self.config_digest = self._image.manifest["config"]["digest"]

    def labels(self) -> Mapping[str, str]:
        return image.labels(self._image.config)

    def claims(self) -> Sequence[Claim] | None:
        return image.claims_of(image.labels(self._image.config))

    def run_record(self) -> RunRecord | None:
        return image.run_record_of(image.labels(self._image.config))

    def state_directories(self) -> Sequence[StateDirectory]:
        claimed = [claim.path for claim in self.claims() or ()]
        return [
            _LayoutDirectory(self._image, path)
            for path in state_directories_in(self._image.tree, claimed)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._store.close()


def open_layout(path: Path | str, tag: str | None = None) -> LayoutImage:
    """Opens an image in a layout's folder or archive.

    Raises `VerificationFailed` for a malformed one, `UsageError` where the tag is not there or the
    layout holds several and none was named.
    """
    store = open_store(Path(path))
    try:
        name = f"oci:{path}:{tag}" if tag else f"oci:{path}"
        return LayoutImage(store, choose(store, tag or None), name)
    except BaseException:
        store.close()
        raise


def _for_this_machine(store: Store, entry: Descriptor) -> Descriptor:
    if entry.media_type not in image.INDEX_TYPES:
        return entry
    children = [
        child
        for child in descriptors(read_json(store, entry).get("manifests"), entry.digest)
        if not is_attestation(child)
    ]
    if not children:
        raise VerificationFailed(f"{entry.digest} in {store.name} holds no image.")
    machine = architecture()
    mine = [
        child
        for child in children
        if (child.raw.get("platform") or {}).get("architecture") == machine
    ]
    return _for_this_machine(store, (mine or children)[0])


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
        for member in self._members_of(node.layer):
            if member.path == MANIFEST_NAME:
                with member.open() as stream:
                    return stream.read()
        return None

    def members(self) -> Iterator[Member]:
        layers = {node.layer for _, node in self._image.tree.walk(self.path)} - {-1}
        for position in sorted(layers):
            yield from self._members_of(position)
            self._image.check_layer(position)

    def _members_of(self, position: int) -> Iterator[Member]:
        with self._image.open_layer(position) as stream:
            yield from content_members(self._image.tree, self.path, stream, position)
