"""Opens an artifact by the name that a person gave it."""

from __future__ import annotations

import os
from pathlib import Path

from bundler.artifacts.names import ENGINE, LAYOUT, REGISTRY, split_layout
from bundler.errors import (
    BundlerError,
    InputOutputError,
    ToolFailed,
    UsageError,
    VerificationFailed,
)
from bundler.state.artifact import Artifact
from bundler.state.run_record import STORE

# No tag of an image ends like this by chance.
_SUFFIXES = (".pex", ".pyz", ".whl", ".tar", ".tgz", ".gz", ".zst")
# Of the last record of a zip file, and how long it can be with its comment.
_END_MAGIC = b"PK\x05\x06"
_MAX_END_BYTES = 22 + 0xFFFF


def open_artifact(name: str) -> Artifact:
    """The artifact behind a path, or a name that says what it is.

    Such are ``docker-daemon:NAME``, ``docker://NAME``, ``oci:DIR[:TAG]`` and ``store:URL``. An
    existing path is taken by what it is; any other bare name is an image in the engine, or else in
    the registry that it names.
    Raises `UsageError` for what is nothing of these, `VerificationFailed` for what is malformed.
    """
    if name.startswith(STORE):
        from bundler.artifacts.stored import open_stored

        return open_stored(name)
    if name.startswith(LAYOUT):
        return _open_layout(name)
    if name.startswith(REGISTRY):
        return _open_in_registry(name)
    if name.startswith(ENGINE):
        return _open_image(name[len(ENGINE) :])
    path = Path(name)
    if path.is_dir():
        return _open_directory(path)
    if path.is_file():
        return _open_file(path)
    if _means_a_path(path, name):
        raise UsageError(
            f"{name} does not exist.", hint=f"An image of that name: {ENGINE}{name.lstrip('./')}"
        )
    return _open_anywhere(name)


def _means_a_path(path: Path, name: str) -> bool:
    """Whether a name of nothing that is here was meant for a file or folder."""
    if name.startswith(("/", "./", "../", "~")) or path.suffix in _SUFFIXES:
        return True
    return "/" in name and path.parent.is_dir() and bool(path.suffix)


def _open_directory(path: Path) -> Artifact:
    if (path / "oci-layout").exists():
        return _open_layout(str(path))
    if (path / "PEX-INFO").exists():
        from bundler.artifacts.python.pex import open_pex

        return open_pex(path)
    from bundler.state.directory import DirectoryArtifact

    return DirectoryArtifact(path)


def _open_file(path: Path) -> Artifact:
    if path.suffix == ".whl":
        from bundler.artifacts.python.wheel import open_wheel

        return open_wheel(path)
    if _ends_as_zip(path):
        from bundler.artifacts.python.pex import open_pex

        return open_pex(path)
    if path.suffix in (".tar", ".tgz", ".gz", ".zst"):
        from bundler.artifacts.image.ociread import open_layout

        return open_layout(path)
    raise VerificationFailed(
        f"{path} is no artifact: neither a PEX, a wheel, nor an image archive.",
        hint="If it is a PEX, it was cut short or damaged: build it again.",
    )


def _ends_as_zip(path: Path) -> bool:
    """Whether there is the record that ends a zip file, whatever else is wrong with it."""
    try:
        with path.open("rb") as stream:
            stream.seek(-min(_MAX_END_BYTES, path.stat().st_size), os.SEEK_END)
            return _END_MAGIC in stream.read()
    except OSError as error:
        raise InputOutputError(f"{path} cannot be read: {error.strerror}.") from error


def _open_layout(reference: str) -> Artifact:
    from bundler.artifacts.image.ociread import open_layout

    return open_layout(*split_layout(reference))


def _open_image(name: str) -> Artifact:
    from bundler.artifacts.image.engine import open_image

    return open_image(name)


def _open_in_registry(name: str) -> Artifact:
    from bundler.artifacts.image.registry import open_image

    return open_image(name)


def _open_anywhere(name: str) -> Artifact:
    """A name without a host is not looked for at Docker Hub: it may be a mistyped path."""
    try:
        return _open_image(name)
    except (UsageError, ToolFailed) as error:
        from bundler.artifacts.image.registry import names_host

        if not names_host(name):
            raise
        not_in_engine = error
    try:
        return _open_in_registry(name)
    except BundlerError as error:
        raise type(error)(f"{not_in_engine.what} {error.what}", hint=error.hint) from error
