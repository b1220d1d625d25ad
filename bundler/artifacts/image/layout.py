"""An OCI image layout: a folder, or a tar archive of one, that holds images by digest.

    layout/
      oci-layout            {"imageLayoutVersion": "1.0.0"}
      index.json            the images in it; a tag is an annotation of an entry
      blobs/sha256/HEX      manifests, configurations, layers

A blob is written beside under a temporary name and renamed to its digest; ``index.json`` is
replaced last, by rename. So at every moment the layout holds what it held, or also the new image.
See https://github.com/opencontainers/image-spec/blob/main/image-layout.md.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from bundler.artifacts.image.archive import Archive
from bundler.artifacts.image.blobs import Descriptor, Store
from bundler.artifacts.image.compression import Compression
from bundler.artifacts.image.image import OCI_INDEX, Json, dump, load
from bundler.artifacts.image.layer import Layer, Written
from bundler.errors import InputOutputError, VerificationFailed

_LAYOUT_FILE = "oci-layout"
_INDEX_FILE = "index.json"
_MAX_INDEX_BYTES = 16 * 1024 * 1024
_VERSION = {"imageLayoutVersion": "1.0.0"}


class Layout(Store, Protocol):
    """A store that lists its images."""

    def index(self) -> Json: ...


def open_store(path: Path) -> Layout:
    """Opens a layout's folder, or an archive of one or of docker's.

    Raises `VerificationFailed` for what is neither.
    """
    return Folder(path) if path.is_dir() else Archive(path)


class Folder:
    """A layout in a folder, to read and to write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / _INDEX_FILE).is_file():
            raise VerificationFailed(f"{path} is no OCI layout: it has no index.json.")

    @property
    def name(self) -> str:
        return str(self.path)

    def index(self) -> Json:
        try:
            with (self.path / _INDEX_FILE).open("rb") as stream:
                raw = stream.read(_MAX_INDEX_BYTES + 1)
        except OSError as error:
            raise InputOutputError(f"{self.path} cannot be read: {error.strerror}.") from error
        if len(raw) > _MAX_INDEX_BYTES:
            raise VerificationFailed(f"{self.path / _INDEX_FILE} is too large to be an index.")
        return load(raw, f"{self.path / _INDEX_FILE}")

    def open(self, entry: Descriptor) -> BinaryIO:
        return self.open_blob(entry.digest)

    def open_blob(self, digest: str) -> BinaryIO:
        path = self._blob(digest)
        try:
            return path.open("rb")
        except FileNotFoundError as error:
            raise VerificationFailed(f"{self.path} lacks the blob {digest}.") from error
        except OSError as error:
            raise InputOutputError(f"{path} cannot be read: {error.strerror}.") from error

    def _blob(self, digest: str) -> Path:
        return self.path / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def close(self) -> None:
        """A folder holds nothing open."""

    # --- writing

    @staticmethod
    def create(path: Path) -> Folder:
        """An empty layout."""
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / _LAYOUT_FILE).write_bytes(dump(_VERSION))
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        (path / _INDEX_FILE).write_bytes(dump(index))
        return Folder(path)

    def add_json(self, value: Mapping[str, Any]) -> tuple[str, int]:
        """Stores a manifest or a configuration; returns its digest and size."""
        raw = dump(value)
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.add(lambda stream: stream.write(raw), lambda: digest)
        return digest, len(raw)

    def add(self, write: Callable[[BinaryIO], object], digest: Callable[[], str]) -> None:
        """Stores a blob that is written first and whose digest is known afterwards."""
        folder = self.path / "blobs" / "sha256"
        folder.mkdir(parents=True, exist_ok=True)
        with _named_when_whole(folder) as (stream, name_it):
            write(stream)
            name_it(self._blob(digest()))

    def add_layer(self, layer: Layer, packing: Compression) -> Written:
        written: list[Written] = []

        def write(stream: BinaryIO) -> None:
            written.append(layer.write(stream.write, packing))

        self.add(write, lambda: f"sha256:{written[0].digest}")
        return written[0]

    def add_config(self, value: Mapping[str, Any]) -> tuple[str, int]:
        return self.add_json(value)

    def add_manifest(self, value: Mapping[str, Any], media_type: str) -> tuple[str, int]:
        del media_type  # stands in the manifest, and in the entry that points at it
        return self.add_json(value)

    def take(self, source: Store, entry: Descriptor) -> None:
        if self._blob(entry.digest).exists():
            return
        seen = hashlib.sha256()

        def write(stream: BinaryIO) -> None:
            with source.open(entry) as blob:
                while chunk := blob.read(1024 * 1024):
                    seen.update(chunk)
                    stream.write(chunk)
            if f"sha256:{seen.hexdigest()}" != entry.digest:
                raise VerificationFailed(
                    f"{entry.digest} in {source.name} is not what its digest says."
                )

        self.add(write, lambda: entry.digest)

    def publish(self, index: Mapping[str, Any]) -> None:
        """Replaces the index: from now on the layout holds the new image."""
        with _named_when_whole(self.path) as (stream, name_it):
            stream.write(dump(index))
            name_it(self.path / _INDEX_FILE)
        sync_folder(self.path)


@contextmanager
def _named_when_whole(
    folder: Path,
) -> Iterator[tuple[BinaryIO, Callable[[Path], None]]]:
    """A temporary file that gets its name once it is written and on disk, or disappears."""
    descriptor, temporary = tempfile.mkstemp(prefix=".partial-", dir=folder)
    final: list[Path] = []
    try:
        with open(descriptor, "wb") as stream:
            yield stream, final.append
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        os.replace(temporary, final[0])
    except OSError as error:
        raise InputOutputError(f"{folder} cannot be written to: {error.strerror}.") from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def sync_folder(path: Path) -> None:
    """Makes the renames in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_archive(folder: Path, destination: Path) -> None:
    """Makes an archive of a layout's folder, the same for the same layout."""
    with _named_when_whole(destination.parent) as (stream, name_it):
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                info = tarfile.TarInfo(path.relative_to(folder).as_posix())
                info.size = path.stat().st_size
                with path.open("rb") as source:
                    archive.addfile(info, source)
        name_it(destination)
    sync_folder(destination.parent)


def is_archive(path: Path) -> bool:
    """Whether a destination is to be an archive: it is a file, or its name says so."""
    return path.is_file() or (not path.is_dir() and path.suffix == ".tar")


@contextmanager
def replaced_folder(destination: Path) -> Iterator[Folder]:
    """A new layout that takes its place by one rename when it is whole, or disappears."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        temporary.chmod(0o755)
        yield Folder.create(temporary)
        if is_archive(destination):
            write_archive(temporary, destination)
        else:
            os.replace(temporary, destination)
            sync_folder(destination.parent)
    except OSError as error:
        raise InputOutputError(f"{destination} cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
