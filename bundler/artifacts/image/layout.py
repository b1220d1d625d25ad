"""An OCI image layout: a folder, or a tar archive of one, that holds images by digest.

    layout/
      oci-layout            {"imageLayoutVersion": "1.0.0"}
      index.json            the images in it; a tag is an annotation of an entry
      blobs/sha256/HEX      manifests, configurations, layers

A blob is written under a temporary name and renamed to its digest; ``index.json`` is
replaced last, by rename. So at every moment the layout holds what it held, or also the new image.
See https://github.com/opencontainers/image-spec/blob/main/image-layout.md.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from bundler.artifacts.image.archive import Archive
from bundler.artifacts.image.blobs import (
    BlobStore,
    Descriptor,
    MissingBlob,
    copy,
    descriptors,
    open_regular,
    refuse_size,
)
from bundler.artifacts.image.compression import Compression, Hashing
from bundler.artifacts.image.image import OCI_INDEX, Json, digest_of, dump, entry_of, load
from bundler.artifacts.image.layer import Layer, Written
from bundler.errors import InputOutputError, VerificationFailed
from bundler.system.atomic import (
    give_name,
    io_errors,
    make_directories,
    remove_leftovers,
    replaced_file,
    sync_directory,
    sync_tree,
    temporary_file,
    temporary_folder,
    write_synced,
)
from bundler.system.walking import files_below

_LAYOUT_FILE = "oci-layout"
_INDEX_FILE = "index.json"
_MAX_INDEX_BYTES = 16 * 1024 * 1024
_DIRECTORY_MODE, _FILE_MODE = 0o755, 0o644
_VERSION = {"imageLayoutVersion": "1.0.0"}


class Layout(BlobStore, Protocol):
    """A store that lists its images."""

    def index(self) -> Json: ...


def entries_of(store: Layout) -> list[Descriptor]:
    """The images and indexes in a store, the newest last."""
    return descriptors(store.index().get("manifests"), store.name)


def open_store(path: Path) -> Layout:
    """Opens a layout's folder, or an archive of one or of docker's.

    Raises `VerificationFailed` for what is neither.
    """
    return LayoutFolder(path) if path.is_dir() else Archive(path)


def remove_leftovers_of(layout: Path) -> None:
    """Removes what a killed process left of a folder or an archive."""
    path = layout.resolve()
    remove_leftovers(path.parent, path.name)
    for directory in (path, path / "blobs" / "sha256"):
        remove_leftovers(directory)


class LayoutFolder:
    """A layout in a folder, for reading and writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / _INDEX_FILE).is_file():
            raise VerificationFailed(f"{path} is not an OCI layout: it has no index.json.")

    @property
    def name(self) -> str:
        return str(self.path)

    def index(self) -> Json:
        with open_regular(self.path / _INDEX_FILE) as stream:
            raw = stream.read(_MAX_INDEX_BYTES + 1)
        if len(raw) > _MAX_INDEX_BYTES:
            raise VerificationFailed(f"{self.path / _INDEX_FILE} is too large to be an index.")
        return load(raw, f"{self.path / _INDEX_FILE}")

    def open(self, entry: Descriptor) -> BinaryIO:
        try:
            stream = open_regular(self._blob(entry.digest))
        except FileNotFoundError as error:
            raise MissingBlob(f"{self.path} is missing the blob {entry.digest}.") from error
        try:
            refuse_size(self, entry, os.fstat(stream.fileno()).st_size)
        except VerificationFailed:
            stream.close()
            raise
        return stream

    def _blob(self, digest: str) -> Path:
        return self.path / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def close(self) -> None:
        """Does nothing: a folder keeps nothing open."""

    # --- writing

    @staticmethod
    def create(path: Path) -> LayoutFolder:
        """Creates a layout without images, in a folder that is empty or does not exist."""
        path.mkdir(parents=True, exist_ok=True)
        _make_blobs(path)
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        for name, content in ((_LAYOUT_FILE, _VERSION), (_INDEX_FILE, index)):
            write_synced(path / name, dump(content), _FILE_MODE)
        return LayoutFolder(path)

    def add_bytes(self, raw: bytes) -> tuple[str, int]:
        """Stores a small blob; returns its digest and size."""
        digest = digest_of(raw)

        def write(stream: BinaryIO) -> str:
            stream.write(raw)
            return digest

        self._add(write)
        return digest, len(raw)

    def _add(self, write: Callable[[BinaryIO], str]) -> None:
        """Stores a blob. write: returns its digest."""
        with io_errors(self.path):
            folder = _make_blobs(self.path)
            with temporary_file(folder / "blob") as (stream, temporary):
                digest = write(stream)
                give_name(stream, temporary, self._blob(digest), _FILE_MODE)

    def add_layer(self, layer: Layer, packing: Compression) -> Written:
        written: list[Written] = []

        def write(stream: BinaryIO) -> str:
            stream.writelines(layer.packed(packing, written.append))
            return f"sha256:{written[0].digest}"

        self._add(write)
        return written[0]

    def add_config(self, value: Mapping[str, Any]) -> tuple[str, int]:
        return self.add_bytes(dump(value))

    def add_manifest(self, value: Mapping[str, Any], media_type: str) -> Json:
        raw = dump(value)
        self.add_bytes(raw)
        return entry_of(raw, media_type)

    def take(self, source: BlobStore, entry: Descriptor) -> None:
        if self._blob(entry.digest).exists():
            return

        def write(stream: BinaryIO) -> str:
            with Hashing(source.open(entry)) as blob:
                shutil.copyfileobj(blob, stream)
                digest = blob.whole_digest()
            if digest != entry.digest:
                what = f"{entry.digest} in {source.name} does not match its digest."
                raise VerificationFailed(what)
            return digest

        self._add(write)

    def take_all(self, source: Archive) -> None:
        """Copies every image of an archive; not what an earlier one has left in it."""
        for entry in entries_of(source):
            copy(source, self, entry)
        self.publish(source.index())

    def publish(self, index: Mapping[str, Any]) -> None:
        """Replaces the index: from now on the layout contains the new image."""
        with io_errors(self.path):
            sync_directory(_make_blobs(self.path))
            write_synced(self.path / _INDEX_FILE, dump(index), _FILE_MODE)


def _make_blobs(layout: Path) -> Path:
    """Creates the folder of the blobs, if needed."""
    folder = layout / "blobs" / "sha256"
    for directory in (folder.parent, folder):
        if directory.is_symlink():
            raise InputOutputError(
                f"{directory} is a link, so nothing was written there.",
                hint="Use a layout of real directories.",
            )
        if not directory.is_dir():
            directory.mkdir()
            directory.chmod(_DIRECTORY_MODE)
            sync_directory(directory.parent)
    return folder


def write_archive(folder: Path, destination: Path) -> None:
    """Makes an archive of a layout's folder; identical for identical layouts."""
    with replaced_file(destination, _FILE_MODE) as stream:
        pack(folder, stream)


def pack(folder: Path, stream: BinaryIO) -> None:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in files_below(folder):
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size = path.stat().st_size
            with path.open("rb") as source:
                archive.addfile(info, source)


def add_to_folder(source: LayoutFolder, destination: Path) -> None:
    """Adds the images of a layout to a folder, which may contain a layout with others."""
    with io_errors(destination):
        make_directories(destination)
        is_layout = os.path.lexists(destination / _INDEX_FILE)
        target = LayoutFolder(destination) if is_layout else LayoutFolder.create(destination)
    new = source.index()["manifests"]
    for path in (source.path / "blobs" / "sha256").iterdir():
        target.take(source, Descriptor("", f"sha256:{path.name}", path.stat().st_size))
    index = target.index()
    tags = [entry.get("annotations") or {} for entry in new]
    others = [
        entry
        for entry in index.get("manifests") or ()
        if entry not in new and (entry.get("annotations") or {}) not in tags
    ]
    target.publish({**index, "manifests": [*others, *new]})


def is_archive(path: Path) -> bool:
    """Whether a destination should be an archive: it is a file, or has such a name."""
    return path.is_file() or (not path.is_dir() and path.suffix == ".tar")


@contextmanager
def replaced_folder(destination: Path) -> Iterator[LayoutFolder]:
    """A new layout that replaces the old one by one rename when it is complete, or disappears."""
    with io_errors(destination):
        make_directories(destination.parent)
        with temporary_folder(destination) as temporary:
            temporary.chmod(_DIRECTORY_MODE)
            yield LayoutFolder.create(temporary)
            if is_archive(destination):
                write_archive(temporary, destination)
            else:
                sync_tree(temporary)
                os.replace(temporary, destination)
                sync_directory(destination.parent)
