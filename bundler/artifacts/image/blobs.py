"""Blobs by digest, wherever they are: an image is a graph of *descriptors*, each naming a blob.

A `BlobStore` is read from (a layout, an archive, a registry), a `BlobTarget` is written to. What
embeds state knows only these two.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Protocol

import msgspec

from bundler.artifacts.image import image
from bundler.artifacts.image.compression import Compression
from bundler.artifacts.image.image import INDEX_TYPES, MANIFEST_TYPES, Json, load
from bundler.artifacts.image.layer import Layer, Written
from bundler.errors import VerificationFailed, unreadable

REF_NAME = "org.opencontainers.image.ref.name"
# A name with its repository, which engines prefer to the tag.
FULL_NAME = "io.containerd.image.name"
_ATTESTATION = "vnd.docker.reference.type"
# Of layers; manifests and configurations have the same media types as an image's.
_ATTESTATION_LAYER = "application/vnd.in-toto+json"
_UNKNOWN = "unknown"
# Large enough for a manifest or a configuration with many megabytes of labels.
_MAX_JSON_BYTES = 16 * 1024 * 1024
# How deeply indexes may be nested; in practice, at most once.
_MAX_DEPTH = 4
# More than twice the number of platforms, each with an attestation.
_MAX_ENTRIES = 256
_DESCRIPTOR = ("mediaType", "digest", "size", "annotations", "platform")
_MANIFEST = ("mediaType", "config", "layers", "manifests", "annotations")
_NOT_DISTRIBUTABLE = (".nondistributable.", ".foreign.")
# Larger than any registry accepts; sums with it stay within every language's integers.
_MAX_SIZE = 2**53 - 1


class Platform(msgspec.Struct, frozen=True):
    """What a manifest of an index is for."""

    os: str = _UNKNOWN
    architecture: str = _UNKNOWN
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename={"media_type": "mediaType"}):
    """Points to a blob. digest: ``sha256:`` and hexadecimal; size in bytes; raw: all its fields."""

    media_type: str
    digest: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
    size: Annotated[int, msgspec.Meta(ge=0, le=_MAX_SIZE)]
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    raw: Json = {}

    @property
    def tag(self) -> str | None:
        return (self.annotations or {}).get(REF_NAME)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is a layer with a restricted licence, which clients download from URLs."""
        is_restricted = any(word in self.media_type for word in _NOT_DISTRIBUTABLE)
        return is_restricted and bool(self.raw.get("urls"))

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def is_manifest(self) -> bool:
        return self.media_type in MANIFEST_TYPES

    @property
    def speaks_of_another(self) -> bool:
        """Whether it is marked as an attestation and names no platform that it could run on."""
        platform = self.platform or Platform()
        is_marked = _ATTESTATION in (self.annotations or {})
        return is_marked and platform.os == platform.architecture == _UNKNOWN


# Before threads do it: see `bundler.state.manifest`.
msgspec.json.Decoder(Descriptor)


def descriptor(value: object, where: str) -> Descriptor:
    """Parses a descriptor. Raises `VerificationFailed` unless it points to a sha256 blob."""
    raw = value if isinstance(value, dict) else {}
    image.refuse_variants(raw, _DESCRIPTOR, where)
    try:
        found = msgspec.convert({**raw, "raw": raw}, Descriptor)
    except msgspec.ValidationError as error:
        raise VerificationFailed(
            f"{where} contains an entry that does not describe a blob."
        ) from error
    image.refuse_variants(raw.get("platform") or {}, Platform.__struct_fields__, "A platform")
    return found


def descriptors(value: object, where: str) -> list[Descriptor]:
    if not isinstance(value, list):
        raise VerificationFailed(f"{where} has no list of blobs.")
    return [descriptor(item, where) for item in value]


class BlobStore(Protocol):
    """A source of blobs. name: as the user named it."""

    @property
    def name(self) -> str: ...

    def open(self, entry: Descriptor) -> BinaryIO:
        """The raw bytes of a blob; the caller checks the digest.

        Raises `VerificationFailed` if the store lacks it.
        """

    def close(self) -> None: ...


class BlobTarget(Protocol):
    """The destination of an image: first its blobs, then the manifests that name them."""

    def add_layer(self, layer: Layer, packing: Compression) -> Written: ...

    def add_config(self, value: Mapping[str, Any]) -> tuple[str, int]:
        """Returns its digest and size in bytes."""

    def add_manifest(self, value: Mapping[str, Any], media_type: str) -> Json:
        """Stores a manifest or an index, without a tag, and returns the entry that points to it."""

    def take(self, source: BlobStore, entry: Descriptor) -> None:
        """Copies a blob from another store and checks its digest."""


class MissingBlob(VerificationFailed):
    """A store lacks a blob that another blob refers to."""


def refuse_size(store: BlobStore, entry: Descriptor, size: int) -> None:
    """Raises `VerificationFailed` unless a blob has the size that its entry says."""
    if size != entry.size:
        raise VerificationFailed(
            f"{entry.digest} in {store.name} does not match its digest: it has {size} bytes "
            f"instead of {entry.size}."
        )


def open_regular(path: Path) -> BinaryIO:
    """Opens a file of an artifact. It may be a link, as Bazel makes them, but no device or FIFO.

    Raises `FileNotFoundError`, `VerificationFailed` for anything but a file, `InputOutputError`.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise VerificationFailed(f"{path} is not a regular file.")
    return open(path, "rb", opener=lambda *_: descriptor)  # the error names the file


def read_json(store: BlobStore, entry: Descriptor) -> Json:
    """Reads a manifest or a configuration and checks its digest."""
    return load(read_small(store, entry), f"{entry.digest} in {store.name}")


def read_small(store: BlobStore, entry: Descriptor) -> bytes:
    """Reads a small blob and checks its digest."""
    if entry.size > _MAX_JSON_BYTES:
        raise VerificationFailed(f"{entry.digest} in {store.name} is too large to be a manifest.")
    with store.open(entry) as stream:
        raw = stream.read(entry.size + 1)
    if len(raw) != entry.size or image.digest_of(raw) != entry.digest:
        raise VerificationFailed(f"{entry.digest} in {store.name} does not match its digest.")
    return raw


def read_manifest(store: BlobStore, entry: Descriptor) -> Json:
    """Reads a manifest or an index, and refuses one that is both."""
    found = read_json(store, entry)
    where = f"{entry.digest} in {store.name}"
    image.refuse_variants(found, _MANIFEST, where)
    other = ("layers", "config") if entry.is_index else ("manifests",)
    if found.get("mediaType", entry.media_type) != entry.media_type or any(
        found.get(key) is not None for key in other
    ):
        raise VerificationFailed(f"{where} contains more than its media type allows.")
    try:
        msgspec.convert(found.get("annotations"), dict[str, str] | None)
    except msgspec.ValidationError as error:
        raise VerificationFailed(f"{where} has invalid annotations.") from error
    return found


def images_of(store: BlobStore, entry: Descriptor) -> list[Descriptor]:
    """The manifest of every platform of an image or an index, without attestations.

    Raises `VerificationFailed` for anything that is not an image, or an index without one.
    """
    found = [one for one in manifests_of(store, entry) if not is_attestation(store, one)]
    if not found:
        raise VerificationFailed(f"{entry.digest} in {store.name} contains no image.")
    return found


def manifests_of(store: BlobStore, entry: Descriptor) -> list[Descriptor]:
    """Every manifest of an image or an index, including attestations."""
    found: list[Descriptor] = []
    seen = 0
    pending = [(entry, 0)]
    while pending:
        entry, depth = pending.pop()
        seen += 1
        if seen > _MAX_ENTRIES or depth > _MAX_DEPTH:
            raise VerificationFailed(
                f"{store.name} has an index of more than {_MAX_ENTRIES} images, or a circular one."
            )
        if entry.is_index:
            children = descriptors(read_manifest(store, entry).get("manifests"), entry.digest)
            pending += [(child, depth + 1) for child in reversed(children[: _MAX_ENTRIES + 1])]
        elif entry.is_manifest:
            found.append(entry)
        else:
            raise VerificationFailed(
                f"{entry.digest} in {store.name} is not an image but {entry.media_type}."
            )
    return found


def is_attestation(store: BlobStore, entry: Descriptor) -> bool:
    """Whether it speaks of another image of its index, as buildx adds it, and can never run.

    https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md
    """
    # Without a platform, engines take it for one of this machine's.
    if not entry.speaks_of_another or not entry.raw.get("platform"):
        return False
    try:
        layers = descriptors(read_manifest(store, entry).get("layers"), entry.digest)
    except MissingBlob:  # engines return images without their attestations
        return True
    return bool(layers) and all(layer.media_type == _ATTESTATION_LAYER for layer in layers)


def copy(source: BlobStore, target: BlobTarget, entry: Descriptor) -> None:
    """Copies an entry and everything that it refers to unchanged, so that its digest stays."""
    for found in manifests_of(source, entry):
        try:
            manifest = read_manifest(source, found)
        except MissingBlob:
            if is_attestation(source, found):  # it is missing in the copy, too
                continue
            raise
        target.take(source, descriptor(manifest.get("config"), found.digest))
        for layer in descriptors(manifest.get("layers"), found.digest):
            take_layer(source, target, layer)
        target.take(source, found)
    _copy_indexes(source, target, entry)


def _copy_indexes(source: BlobStore, target: BlobTarget, entry: Descriptor) -> None:
    """Copies nested indexes, the innermost first: `manifests_of` has bounded their depth."""
    if entry.is_index:
        for child in descriptors(read_manifest(source, entry).get("manifests"), entry.digest):
            _copy_indexes(source, target, child)
        target.take(source, entry)


def take_layer(source: BlobStore, target: BlobTarget, layer: Descriptor) -> None:
    """Copies a layer of another image, which may be missing if it is elsewhere."""
    try:
        target.take(source, layer)
    except MissingBlob:
        if not layer.is_elsewhere:
            raise
