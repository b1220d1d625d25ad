"""Names of artifacts: what a user calls an image, a PEX, a wheel or a store, taken apart once.

    PATH                       a file or folder that exists
    oci:DIR[:TAG]              an image in an OCI layout, or in an archive of one
    docker-daemon:NAME         an image in the engine
    docker://NAME              an image in a registry
    store:[URL][@WHEN]         states in versioned storage
    NAME                       an image: in the engine, else in the registry that it names

NAME is ``[HOST/]REPOSITORY[:TAG][@DIGEST]``, or the ID of an image in the engine.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from bundler.artifacts import reference
from bundler.errors import UsageError, unreadable
from bundler.state.run_record import STORE

LATEST = reference.LATEST
Kind = Literal["path", "layout", "engine", "registry", "store", "image"]

_PREFIXES: dict[str, Kind] = {
    STORE: "store",
    "oci:": "layout",
    reference.PREFIX: "registry",
    "docker-daemon:": "engine",
}
# skopeo's and podman's names of what is read here in another way.
_OTHERS = {
    "oci-archive:": "Use oci:FILE or oci:FILE:TAG for an archive.",
    "docker-archive:": "Use oci:FILE or oci:FILE:TAG for an archive.",
    "containers-storage:": "Copy it first: skopeo copy containers-storage:NAME oci:DIR:TAG",
}
_PREFIX_OF = {kind: prefix for prefix, kind in _PREFIXES.items()}
# No image's tag ends like this by accident.
ARCHIVES = (".tar", ".tgz", ".gz", ".zst")
_SUFFIXES = (".pex", ".pyz", ".whl", *ARCHIVES)
# An update adds this many digits of the content digest to a tag.
STATE_DIGITS = 12
_STATE_TAG = re.compile(rf"(.+)-s[0-9a-f]{{{STATE_DIGITS}}}")
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class ArtifactName(msgspec.Struct, frozen=True):
    """The name of an artifact as a user gives it. Nothing has been opened, no engine or registry
    asked.

    kind: where it is; ``image`` if that is still open. name: the path, the repository with its
    host, or the rest of a store's name. tag: of an image. digest: for an image that is named by
    digest.
    """

    kind: Kind
    name: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> ArtifactName:
        """Reads a name by its prefix; one without is an existing path, or else an image.

        Raises `UsageError` for anything else.
        """
        for prefix, kind in _PREFIXES.items():
            if text.startswith(prefix):
                if kind == "layout":
                    return cls.layout(text)
                rest = text[len(prefix) :]
                return cls(kind, rest) if kind == "store" else cls._image(kind, rest)
        if exists(text):
            return cls("layout" if exists(os.path.join(text, "oci-layout")) else "path", text)
        for other, hint in _OTHERS.items():
            if text.startswith(other):
                raise UsageError(f"{text}: images are not named with {other} here.", hint=hint)
        _refuse_path(text)
        return cls._image("image", text)

    @classmethod
    def layout(cls, text: str) -> ArtifactName:
        """Reads ``[oci:]DIR[:TAG]``; ``oci://DIR[:TAG]``, too. A path that exists has no tag."""
        prefix = _PREFIX_OF["layout"]
        path = text
        if text.startswith(prefix):
            path = text[len(prefix) :].removeprefix("//")
        directory, colon, tag = path.rpartition(":")
        has_tag = bool(colon) and "/" not in tag and not exists(path)
        found = cls("layout", directory, tag) if has_tag else cls("layout", path)
        if not found.name or (has_tag and not _is_layout_tag(tag)):
            raise UsageError(
                f"{text!r} is not a valid name of an image in an OCI layout.",
                hint="Use oci:DIR or oci:DIR:TAG.",
            )
        return found

    @classmethod
    def _image(cls, kind: Kind, text: str) -> ArtifactName:
        reference.parse(text)
        return cls(kind, *reference.split(text))

    @property
    def path(self) -> Path:
        """The path of a file, a folder, or a layout."""
        return Path(self.name)

    @property
    def image(self) -> str:
        """The name as engines and registries take it: without a prefix."""
        tag = f":{self.tag}" if self.tag else ""
        return self.name + tag + (f"@{self.digest}" if self.digest else "")

    @property
    def shown(self) -> str:
        """An image's name as docker shows it; any other name as `parse` takes it."""
        if self.kind == "registry":
            return str(reference.parse(self.image))
        return self.image if self.kind == "engine" else str(self)

    def tagged(self, tag: str) -> ArtifactName:
        """Another tag of the same layout or repository. Raises `UsageError` if it is not a tag."""
        if self.kind != "layout":
            reference.check_tag(tag)
        elif not _is_layout_tag(tag):
            raise UsageError(f"{tag!r} is not a valid tag in an OCI layout.")
        return ArtifactName(self.kind, self.name, tag)

    def without_asking(self) -> ArtifactName:
        """The same if no engine may be asked: a name with a host is then a registry's."""
        if self.kind != "image":
            return self
        kind: Kind = "registry" if reference.names_host(self.name) else "engine"
        return msgspec.structs.replace(self, kind=kind)

    def __str__(self) -> str:
        slashes = "//" if self.kind == "layout" and self.name.startswith("//") else ""
        return _PREFIX_OF.get(self.kind, "") + slashes + self.image


def without_state(tag: str) -> str:
    """``1.4`` for ``1.4-s0123456789ab``, the tag that an update adds; other tags unchanged."""
    updated = _STATE_TAG.fullmatch(tag)
    return updated[1] if updated else tag


def is_pex_folder(path: Path) -> bool:
    """A virtual environment that pex has made has a PEX-INFO, too, and is an ordinary folder."""
    return (path / "PEX-INFO").exists() and not (path / "pyvenv.cfg").exists()


def exists(path: str) -> bool:
    """Whether the file or folder exists. Raises `InputOutputError` if that cannot be determined."""
    try:
        os.stat(path)
    except ValueError:  # a null byte
        return False
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise unreadable(path, error) from error
    return True


def _refuse_path(text: str) -> None:
    """Raises `UsageError` for a name that was meant as a file or folder but does not exist."""
    path = Path(text)
    is_path = text.startswith(("/", "./", "../", "~")) or path.suffix in _SUFFIXES
    # `team/shop:1.4` is an image, even if there is a folder `team`.
    if "/" in text and ":" not in path.name and path.suffix:
        is_path = is_path or exists(str(path.parent))
    if is_path:
        raise UsageError(
            f"{text} does not exist.",
            hint="Build it first, or correct the path."
            if path.suffix in _SUFFIXES
            else "For an image, use docker-daemon:NAME or docker://NAME; for a layout, oci:DIR.",
        )


def _is_layout_tag(tag: str) -> bool:
    """Whether a tag is safe: the grammar or a terminal would misread some annotations."""
    return tag.isprintable() and bool(tag) and not set(tag) & set(" :/")
