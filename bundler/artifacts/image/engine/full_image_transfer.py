"""Transfers for stores that do not accept a single layer: containerd's, and Podman's.

Podman only accepts a whole image: it is fetched, changed as an OCI layout, and sent back.
containerd's store accepts new blobs alone if the manifest is known and the store has all other
blobs. That takes 0.2 s instead of half a minute for an image of 1 GB, so it is tried first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import image
from bundler.artifacts.image.add_layer import Appended, BaseImage, append
from bundler.artifacts.image.blobs import BlobStore, Descriptor, descriptor, images_of, manifests_of
from bundler.artifacts.image.engine.connection import Docker, Engine
from bundler.artifacts.image.engine.loading import load
from bundler.artifacts.image.image import Json
from bundler.artifacts.image.layer import Layer
from bundler.artifacts.image.layout import LayoutFolder, write_archive
from bundler.artifacts.image.ociread import LoadedImage, choose
from bundler.errors import ToolFailed, VerificationFailed
from bundler.state.manifest import RunRecord
from bundler.system import process

_NAME = "io.containerd.image.name"
_CHUNK_BYTES = 1024 * 1024


def send_whole(
    engine: Engine, image_id: str, layer: Layer, record: RunRecord, name_prefix: str
) -> tuple[str, list[str]]:
    """Returns the new image's temporary name (these engines drop unnamed images), and the
    digests of its layers."""
    if not engine.is_podman:  # it only accepts a whole image
        with suppress(_Unfit, ToolFailed):
            return _send_new_blobs(engine, image_id, layer, record, name_prefix)
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as folder:
        layout = fetch(engine, image_id, Path(folder))
        source = BaseImage(layout, choose(layout, None))
        made = append(_request(layer, record), layout, [source])
        return _load(engine, layout, made, name_prefix)


def _request(layer: Layer, record: RunRecord) -> EmbedRequest:
    places = {item.bundle.place: item.path for item in layer.placed}
    return EmbedRequest(tuple(item.bundle for item in layer.placed), record, places)


def _load(
    engine: Engine, layout: LayoutFolder, made: Appended, name_prefix: str
) -> tuple[str, list[str]]:
    """Loads the layout's image; returns the same as `send_whole`."""
    digest = made.entry["digest"]
    name = f"{name_prefix}{digest.removeprefix('sha256:')[:32]}"
    layout.publish({**layout.index(), "manifests": [made.entry]})
    keep_only(layout, digest, name)
    archive = layout.path.with_name("image.tar")
    write_archive(layout.path, archive)
    try:
        load(engine, pieces_of(archive))
    except ToolFailed:  # it may have got the name anyway
        with suppress(ToolFailed):
            engine.remove_image(name)
        raise
    (first, *_) = images_of(layout, descriptor(made.entry, name))
    return name, image.diff_ids(LoadedImage(layout, first).config)


class _Unfit(Exception):
    """The image cannot be completed by new blobs alone."""


class _Addition(LayoutFolder):
    """A layout of only the new blobs: the store already has the others."""

    def take(self, source: BlobStore, entry: Descriptor) -> None:
        """Does nothing: the blob is in the store."""


def _send_new_blobs(
    engine: Engine, image_id: str, layer: Layer, record: RunRecord, name_prefix: str
) -> tuple[str, list[str]]:
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as folder:
        base = _documents(engine.docker, image_id, Path(folder, "base"))
        entry = choose(base, None)
        if len(list(images_of(base, entry))) != 1:  # each platform has different paths
            raise _Unfit
        layout = _Addition(LayoutFolder.create(Path(folder, "new")).path)
        made = append(_request(layer, record), layout, [BaseImage(base, entry)], layer=layer)
        return _load(engine, layout, made, name_prefix)


def _documents(docker: Docker, image_id: str, folder: Path) -> LayoutFolder:
    """The image's manifests and configuration as a layout without layers.

    The engine's API does not return them, but buildx's history does, for any image in the store.
    Raises `ToolFailed` if it cannot.
    """
    layout = LayoutFolder.create(folder)

    def ask(digest: str) -> Json:
        argv = docker.argv("buildx", "history", "inspect", "attachment", "", digest)
        raw = process.check(argv, env=docker.environment)
        if f"sha256:{hashlib.sha256(raw).hexdigest()}" != digest:
            raise ToolFailed(f"buildx returned something other than {digest}.")
        layout.add(partial(_write, raw), partial(str, digest))
        top.setdefault("size", len(raw))
        return image.load(raw, digest)

    top: dict[str, Any] = {"digest": image_id}
    found = ask(image_id)
    top["mediaType"] = found.get("mediaType")
    layout.publish({**layout.index(), "manifests": [top]})
    for entry in manifests_of(layout, choose(layout, None)):
        manifest = found if entry.digest == image_id else ask(entry.digest)
        ask(descriptor(manifest.get("config"), entry.digest).digest)
    return layout


def _write(raw: bytes, stream: BinaryIO) -> None:
    stream.write(raw)


def fetch(engine: Engine, image_id: str, folder: Path) -> LayoutFolder:
    """The image as a layout; newer engines export one, older ones their own kind of archive."""
    archive = folder / "fetched.tar"
    with (
        engine.image_archive(image_id) as response,
        archive.open("wb") as stream,
    ):
        shutil.copyfileobj(response, stream, _CHUNK_BYTES)
    with tarfile.open(archive, "r:") as opened:
        names = set(opened.getnames())
        if "index.json" in names:
            layout = folder / "layout"
            _unpack(opened, layout)
            return LayoutFolder(layout)
        return _converted(opened, folder / "layout")


def _unpack(archive: tarfile.TarFile, folder: Path) -> None:
    for member in archive:
        if member.isreg() and ".." not in Path(member.name).parts:
            target = folder / member.name.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as stream:
                shutil.copyfileobj(cast("BinaryIO", archive.extractfile(member)), stream)


def _converted(archive: tarfile.TarFile, folder: Path) -> LayoutFolder:
    """A docker archive as an OCI layout."""
    layout = LayoutFolder.create(folder)
    listing = image.load(b'{"images":' + _bytes_of(archive, "manifest.json") + b"}", "The list")
    try:
        entry: dict[str, Any] = listing["images"][0]
        config = _bytes_of(archive, entry["Config"])
        layers = [_add_layer(layout, archive, name) for name in entry["Layers"]]
    except (KeyError, IndexError, TypeError) as error:
        raise ToolFailed("The engine's archive of the image cannot be read.") from error
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    layout.add(lambda stream: stream.write(config), lambda: digest)
    manifest = {
        "schemaVersion": 2,
        "mediaType": image.OCI_MANIFEST,
        "config": {"mediaType": image.OCI_CONFIG, "digest": digest, "size": len(config)},
        "layers": layers,
    }
    manifest_digest, size = layout.add_json(manifest)
    top = {"mediaType": image.OCI_MANIFEST, "digest": manifest_digest, "size": size}
    layout.publish({"schemaVersion": 2, "mediaType": image.OCI_INDEX, "manifests": [top]})
    return layout


def _bytes_of(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(archive.getmember(name))
    if stream is None:
        raise VerificationFailed(f"The engine's archive is missing {name}.")
    with stream:
        return stream.read()


def _add_layer(layout: LayoutFolder, archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = 0

    def write(stream: BinaryIO) -> None:
        nonlocal size
        source = cast("BinaryIO", archive.extractfile(archive.getmember(name)))
        with source:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                stream.write(chunk)

    layout.add(write, lambda: f"sha256:{digest.hexdigest()}")
    return {
        "mediaType": image.OCI_LAYER,
        "digest": f"sha256:{digest.hexdigest()}",
        "size": size,
    }


def keep_only(layout: LayoutFolder, digest: str, name: str) -> str:
    """Keeps one image in the index, under the name that it will have in the engine."""
    index = layout.index()
    entries = [entry for entry in index["manifests"] if entry["digest"] == digest]
    annotations = {**(entries[0].get("annotations") or {}), _NAME: name}
    layout.publish({**index, "manifests": [{**entries[0], "annotations": annotations}]})
    for left_over in ("manifest.json", "repositories"):
        if (layout.path / left_over).exists():
            os.unlink(layout.path / left_over)
    return name


def pieces_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file."""
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
