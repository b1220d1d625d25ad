"""Blobs by digest, wherever they are: an image is a graph of *descriptors*, each naming a blob.

A `Store` is read from (a layout, an archive, a registry), a `Target` is written to. What embeds
state knows only these two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, BinaryIO, Protocol

import msgspec

from bundler.artifacts.image.compression import Compression
from bundler.artifacts.image.image import INDEX_TYPES, MANIFEST_TYPES, Json, load
from bundler.artifacts.image.layer import Layer, Written
from bundler.errors import VerificationFailed

REF_NAME = "org.opencontainers.image.ref.name"
_ATTESTATION = "vnd.docker.reference.type"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# A manifest or a configuration with labels of many megabytes is still below this.
_MAX_JSON_BYTES = 16 * 1024 * 1024
# Indexes in indexes: nobody makes more of them than one in another.
_MAX_DEPTH = 4
_NOT_DISTRIBUTABLE = (".nondistributable.", ".foreign.")


class Descriptor(msgspec.Struct, frozen=True):
    """Points at a blob. digest: ``sha256:`` and hexadecimal; size in bytes; raw: all its fields."""

    media_type: str
    digest: str
    size: int
    raw: Json

    @property
    def tag(self) -> str | None:
        found = (self.raw.get("annotations") or {}).get(REF_NAME)
        return str(found) if found is not None else None

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def is_manifest(self) -> bool:
        return self.media_type in MANIFEST_TYPES

    @property
    def is_attestation(self) -> bool:
        """Whether it speaks of an image beside it, as buildx adds it to an index."""
        return _ATTESTATION in (self.raw.get("annotations") or {})

    def to(self, digest: str, size: int, **fields: Any) -> Json:
        """The same entry for another blob."""
        return {**self.raw, "digest": digest, "size": size, **fields}


def descriptor(value: object, where: str) -> Descriptor:
    """Raises `VerificationFailed` for what is no descriptor of a sha256 blob."""
    if isinstance(value, dict):
        media_type, digest, size = (value.get(key) for key in ("mediaType", "digest", "size"))
        annotations = value.get("annotations") or {}
        if (
            isinstance(media_type, str)
            and isinstance(digest, str)
            and _DIGEST.fullmatch(digest)
            and isinstance(size, int)
            and size >= 0
            and isinstance(annotations, dict)
        ):
            return Descriptor(media_type, digest, size, value)
    raise VerificationFailed(f"{where} holds an entry that does not describe a blob.")


def descriptors(value: object, where: str) -> list[Descriptor]:
    if not isinstance(value, list):
        raise VerificationFailed(f"{where} has no list of blobs.")
    return [descriptor(item, where) for item in value]


class Store(Protocol):
    """Blobs to read. name: as the person named it."""

    @property
    def name(self) -> str: ...

    def open(self, entry: Descriptor) -> BinaryIO:
        """A blob's bytes, as they are; whoever reads them checks the digest.

        Raises `VerificationFailed` where the store lacks it.
        """

    def close(self) -> None: ...


class Target(Protocol):
    """Where an image is put together: blobs first, then the manifests that name them."""

    def add_layer(self, layer: Layer, packing: Compression) -> Written: ...

    def add_config(self, value: Mapping[str, Any]) -> tuple[str, int]:
        """Returns its digest and size in bytes."""

    def add_manifest(self, value: Mapping[str, Any], media_type: str) -> tuple[str, int]:
        """A manifest or an index, without a tag."""

    def take(self, source: Store, entry: Descriptor) -> None:
        """A blob of another store, checked against its digest."""


def read_json(store: Store, entry: Descriptor) -> Json:
    """A manifest or a configuration, checked against its digest."""
    if entry.size > _MAX_JSON_BYTES:
        raise VerificationFailed(f"{entry.digest} in {store.name} is too large to be a manifest.")
    with store.open(entry) as stream:
        raw = stream.read(entry.size + 1)
    if len(raw) != entry.size or f"sha256:{hashlib.sha256(raw).hexdigest()}" != entry.digest:
        raise VerificationFailed(f"{entry.digest} in {store.name} is not what its digest says.")
    return load(raw, f"{entry.digest} in {store.name}")


def images_of(store: Store, entry: Descriptor, depth: int = 0) -> list[Descriptor]:
    """Every platform's manifest of an image or an index; what only speaks of them left out.

    Raises `VerificationFailed` for what is no image, or an index without one.
    """
    if entry.is_manifest:
        return [entry]
    if not entry.is_index:
        raise VerificationFailed(
            f"{entry.digest} in {store.name} is no image but {entry.media_type}."
        )
    if depth == _MAX_DEPTH:
        raise VerificationFailed(f"{entry.digest} in {store.name} is an index without end.")
    children = descriptors(read_json(store, entry).get("manifests"), entry.digest)
    found = [
        image
        for child in children
        if not child.is_attestation
        for image in images_of(store, child, depth + 1)
    ]
    if not found:
        raise VerificationFailed(f"{entry.digest} in {store.name} holds no image.")
    return found


def copy(source: Store, target: Target, entry: Descriptor, depth: int = 0) -> None:
    """Everything that an entry points at, and itself, as it is: its digest stays."""
    if depth > _MAX_DEPTH:
        raise VerificationFailed(f"{entry.digest} in {source.name} is an index without end.")
    if entry.is_index:
        for child in descriptors(read_json(source, entry).get("manifests"), entry.digest):
            copy(source, target, child, depth + 1)
    elif entry.is_manifest:
        manifest = read_json(source, entry)
        target.take(source, descriptor(manifest.get("config"), entry.digest))
        for layer in descriptors(manifest.get("layers"), entry.digest):
            take_layer(source, target, layer)
    target.take(source, entry)


def take_layer(source: Store, target: Target, layer: Descriptor) -> None:
    """A layer of another image; one that may not be handed on stays where its licence has it."""
    if not any(word in layer.media_type for word in _NOT_DISTRIBUTABLE):
        target.take(source, layer)
