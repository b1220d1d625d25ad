"""Opens an artifact by its name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.artifacts.names import ARCHIVES, ArtifactName, is_pex_folder
from bundler.artifacts.reference import names_host
from bundler.errors import (
    BundlerError,
    ToolFailed,
    UsageError,
    VerificationFailed,
)
from bundler.state.artifact import Artifact
from bundler.state.directory import DirectoryArtifact
from bundler.system.reading import reading

if TYPE_CHECKING:
    from bundler.artifacts.image.registry import Connections

# The size of the last record of a zip file, and how long it can be with its comment.
_END_MAGIC = b"PK\x05\x06"
_MAX_END_BYTES = 22 + 0xFFFF


def open_artifact(name: str | ArtifactName, connections: Connections | None = None) -> Artifact:
    """Opens the artifact with this name; an existing path is opened by its contents.

    connections: to registries, of a command that opens many.
    Raises as `ArtifactName.parse` does, `UsageError` if there is no such artifact, and
    `VerificationFailed` if it is malformed.
    """
    if isinstance(name, str):
        name = ArtifactName.parse(name)
    if name.kind == "store":
        from bundler.artifacts.stored import open_stored

        return open_stored(str(name))
    if name.kind == "layout":
        from bundler.artifacts.image.ociread import open_layout

        return open_layout(name.path, name.tag)
    if name.kind == "engine":
        return _open_image(name.image)
    if name.kind == "registry":
        return _open_in_registry(name.image, connections)
    if name.kind == "image":
        return _open_anywhere(name.image, connections)
    return _open_directory(name.path) if name.path.is_dir() else _open_file(name.path)


def is_in_registry(name: str) -> bool:
    """Whether reading it mostly waits for a registry. False for what is not a name."""
    try:
        return ArtifactName.parse(name).without_asking().kind == "registry"
    except BundlerError:
        return False


@contextmanager
def shared_connections(names: Sequence[object]) -> Iterator[Connections | None]:
    """The connections for all artifacts of a command; None if it has only one."""
    if len(names) == 1:
        yield None
        return
    from bundler.artifacts.image.registry import Connections

    with Connections() as connections:
        yield connections


def _open_directory(path: Path) -> Artifact:
    if is_pex_folder(path):
        from bundler.artifacts.python.pex.file import PexArtifact

        return PexArtifact(path)
    return DirectoryArtifact(path)


def _open_file(path: Path) -> Artifact:
    if not path.is_file():
        raise UsageError(f"{path} is neither a file nor a folder.")
    if path.suffix == ".whl":
        from bundler.artifacts.python.wheel import WheelArtifact

        return WheelArtifact(path)
    if path.suffix in ARCHIVES:  # whose last file may be a zip file
        from bundler.artifacts.image.ociread import open_layout

        return open_layout(path)
    if ends_as_zip(path):
        from bundler.artifacts.python.pex.file import PexArtifact

        return PexArtifact(path)
    raise VerificationFailed(
        f"{path} is not an artifact: neither a PEX, a wheel, nor an image archive.",
        hint="If it is a PEX, it is truncated or damaged: build it again.",
    )


def ends_as_zip(path: Path) -> bool:
    """Whether the record that ends a zip file exists, whatever else is wrong with the file."""
    with reading(path), path.open("rb") as stream:
        stream.seek(-min(_MAX_END_BYTES, path.stat().st_size), os.SEEK_END)
        return _END_MAGIC in stream.read()


def _open_image(name: str) -> Artifact:
    from bundler.artifacts.image.engine.opening import open_image

    return open_image(name)


def _open_in_registry(name: str, connections: Connections | None) -> Artifact:
    from bundler.artifacts.image.registry import open_image

    return open_image(name, connections)


def _open_anywhere(name: str, connections: Connections | None) -> Artifact:
    """A name without a host is not looked up at Docker Hub: it may be a mistyped path."""
    try:
        return _open_image(name)
    except (UsageError, ToolFailed) as error:
        if not names_host(name):
            raise
        not_in_engine = error
    try:
        return _open_in_registry(name, connections)
    except BundlerError as error:
        error.what = f"{not_in_engine.what} {error.what}"
        raise
