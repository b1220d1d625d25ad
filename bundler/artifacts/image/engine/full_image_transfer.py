"""Transfers for stores that do not accept a single layer: containerd's, and Podman's.

Podman only accepts a whole image: it is fetched, changed as an OCI layout, and sent back.
containerd's store accepts new blobs alone if the manifest is known and the store has all other
blobs. That takes 0.2 s instead of half a minute for an image of 1 GB, so it is tried first.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from bundler.artifacts import reference
from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import image
from bundler.artifacts.image.add_layer import Appended, BaseImage, append
from bundler.artifacts.image.archive import Archive
from bundler.artifacts.image.blobs import (
    FULL_NAME,
    REF_NAME,
    BlobStore,
    Descriptor,
    descriptor,
    images_of,
    manifests_of,
)
from bundler.artifacts.image.engine.connection import Docker, Engine
from bundler.artifacts.image.engine.loading import load
from bundler.artifacts.image.image import Json
from bundler.artifacts.image.layer import Layer
from bundler.artifacts.image.layout import LayoutFolder, entries_of, write_archive
from bundler.artifacts.image.ociread import LoadedImage, choose
from bundler.errors import ToolFailed
from bundler.state.manifest import RunRecord
from bundler.system import process

_CHUNK_BYTES = 1024 * 1024


def send_whole(
    engine: Engine, image_id: str, layer: Layer, record: RunRecord, name_prefix: str
) -> tuple[str, list[str]]:
    """Returns the new image's temporary name (these engines drop unnamed images), and the
    digests of its layers."""
    places = {item.bundle.place: item.path for item in layer.placed}
    request = EmbedRequest(tuple(item.bundle for item in layer.placed), record, places)
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        folder = Path(name)
        if not engine.is_podman:  # it only accepts a whole image
            with suppress(ToolFailed):
                new = _new_blobs(engine.docker, image_id, request, layer, folder)
                return _load(engine, *new, name_prefix)
        layout = LayoutFolder.create(folder / "whole")
        with saved(engine, image_id) as source:
            made = append(request, layout, [source])
        return _load(engine, layout, made, name_prefix)


def _load(
    engine: Engine, layout: LayoutFolder, made: Appended, name_prefix: str
) -> tuple[str, list[str]]:
    """Loads the layout's image; returns the same as `send_whole`."""
    name = f"{name_prefix}{made.entry['digest'].removeprefix('sha256:')[:32]}"
    publish_only(layout, made.entry, name)
    try:
        load_layout(engine, layout)
    except ToolFailed:  # it may have got the name anyway
        with suppress(ToolFailed):
            engine.remove_image(name)
        raise
    (first, *_) = images_of(layout, descriptor(made.entry, name))
    return name, image.diff_ids(LoadedImage(layout, first).config)


def load_layout(engine: Engine, layout: LayoutFolder) -> None:
    """Loads a layout's image, by an archive next to the layout."""
    archive = layout.path.with_name("image.tar")
    write_archive(layout.path, archive)
    load(engine, pieces_of(archive))


class _Addition(LayoutFolder):
    """A layout of only the new blobs: the store already has the others."""

    def take(self, source: BlobStore, entry: Descriptor) -> None:
        """Does nothing: the blob is in the store."""


def _new_blobs(
    docker: Docker, image_id: str, request: EmbedRequest, layer: Layer, folder: Path
) -> tuple[LayoutFolder, Appended]:
    """A layout with only what the store does not have."""
    base = _documents(docker, image_id, folder / "base")
    entry = choose(base, None)
    if len(list(images_of(base, entry))) != 1:
        raise ToolFailed("Each platform has different paths.")
    layout = _Addition(LayoutFolder.create(folder / "new").path)
    return layout, append(request, layout, [BaseImage(base, entry)], layer=layer)


def _documents(docker: Docker, image_id: str, folder: Path) -> LayoutFolder:
    """The image's manifests and configuration as a layout without layers.

    The engine's API does not return them, but buildx's history does, for any image in the store.
    Raises `ToolFailed` if it cannot.
    """
    layout = LayoutFolder.create(folder)

    def ask(digest: str) -> Json:
        argv = docker.argv("buildx", "history", "inspect", "attachment", "", digest)
        raw = process.check(argv, env=docker.environment)
        if image.digest_of(raw) != digest:
            raise ToolFailed(f"buildx returned something other than {digest}.")
        layout.add_bytes(raw)
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


@contextmanager
def saved(engine: Engine, image_id: str) -> Iterator[BaseImage]:
    """The whole image, in a temporary file: in the engine's own format, or as an OCI layout."""
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as folder:
        path = Path(folder, "image.tar")
        with engine.image_archive(image_id) as response, path.open("wb") as stream:
            shutil.copyfileobj(response, stream, _CHUNK_BYTES)
        with closing(Archive(path)) as archive:
            entry, *_ = entries_of(archive)
            yield BaseImage(archive, entry)


def publish_only(layout: LayoutFolder, entry: Json, *names: str) -> None:
    """Makes an image the only one of a layout, with the names that it will have in the engine."""
    annotations = entry.get("annotations") or {}
    named = [
        {**entry, "annotations": {**annotations, FULL_NAME: str(found), REF_NAME: found.what}}
        for found in map(reference.parse, names)  # containerd accepts no other form
    ]
    layout.publish({**layout.index(), "manifests": named or [entry]})


def pieces_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file."""
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
