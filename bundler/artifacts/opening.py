"""Opens an artifact by the name that a person gave it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from bundler.artifacts import Artifact
from bundler.errors import UsageError, VerificationFailed

ENGINE = "docker-daemon:"
LAYOUT = "oci:"
REGISTRY = "docker://"
STORE = "store:"


def open_artifact(name: str) -> Artifact:
    """The artifact behind a path, ``docker-daemon:NAME``, ``oci:DIR[:TAG]`` or ``store:URL``.

    An existing path is taken by what it is; any other bare name is an image in the engine.
    Raises `UsageError` for what is nothing of these, `VerificationFailed` for what is malformed.
    """
    if name.startswith(STORE):
        from bundler.storage.artifact import open_stored

        return open_stored(name)
    if name.startswith(LAYOUT):
        return _open_layout(name[len(LAYOUT) :].removeprefix("//"))
    if name.startswith(REGISTRY):
        raise UsageError(
            f"{name}: images in a registry cannot be read yet.",
            hint="Pull the image, or copy it to an OCI layout, and name that.",
        )
    if name.startswith(ENGINE):
        return _open_image(name[len(ENGINE) :])
    path = Path(name)
    if path.is_dir():
        return _open_directory(path)
    if path.is_file():
        return _open_file(path)
    if "/" in name and path.parent.is_dir() and not path.exists() and path.suffix:
        raise UsageError(f"{name} does not exist.")
    return _open_image(name)


def _open_directory(path: Path) -> Artifact:
    if (path / "oci-layout").exists():
        return _open_layout(str(path))
    if (path / "PEX-INFO").exists():
        from bundler.artifacts.pex import open_pex

        return open_pex(path)
    from bundler.artifacts.directory import DirectoryArtifact

    return DirectoryArtifact(path)


def _open_file(path: Path) -> Artifact:
    if path.suffix == ".whl":
        from bundler.artifacts.wheel import open_wheel

        return open_wheel(path)
    if zipfile.is_zipfile(path):
        from bundler.artifacts.pex import open_pex

        return open_pex(path)
    if path.suffix in (".tar", ".tgz", ".gz", ".zst"):
        from bundler.artifacts.oci import open_layout

        return open_layout(path)
    raise VerificationFailed(
        f"{path} is no artifact: neither a PEX, a wheel, nor an image archive.",
        hint="If it is a PEX, it was cut short or damaged: build it again.",
    )


def _open_layout(reference: str) -> Artifact:
    from bundler.artifacts.oci import open_layout

    directory, _, tag = reference.rpartition(":")
    if directory and not Path(reference).exists():
        return open_layout(Path(directory), tag)
    return open_layout(Path(reference))


def _open_image(name: str) -> Artifact:
    from bundler.artifacts.docker import open_image

    return open_image(name)
