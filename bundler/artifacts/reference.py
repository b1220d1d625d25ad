"""Names of images: ``[HOST/]REPOSITORY[:TAG][@DIGEST]``.

The first part is a host if it has a dot or a port or is ``localhost``; otherwise the image is on
Docker Hub. See https://github.com/distribution/reference.
"""

from __future__ import annotations

import re

import msgspec

from bundler.errors import UsageError

HUB = "docker.io"
LATEST = "latest"
PREFIX = "docker://"
_HUB_ALIASES = (HUB, "index.docker.io", "registry-1.docker.io")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:\[[0-9a-fA-F:]+\]|{_LABEL}(?:\.{_LABEL})*)(?::[0-9]{{1,5}})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# The user in a URL, possibly with a password: not shown.
_USER = re.compile(r"[^/@]*@(?=[^@]*/)")
_MAX_REPOSITORY = 255


class Reference(msgspec.Struct, frozen=True):
    """An image in a registry. host: as in the name. Has a tag, a digest, or both."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def what(self) -> str:
        """What the registry is asked for: the digest, or else the tag."""
        return self.digest or self.tag or LATEST

    @property
    def name(self) -> str:
        """The repository with its host, as docker names it."""
        return f"{self.host}/{self.repository}"

    @property
    def artifact(self) -> str:
        """As commands accept it."""
        return f"{PREFIX}{self}"

    def at(self, digest: str) -> Reference:
        return msgspec.structs.replace(self, tag=None, digest=digest)

    def tagged(self, tag: str) -> Reference:
        """Another tag of the same repository. Raises `UsageError` if it is not a tag."""
        check_tag(tag)
        return msgspec.structs.replace(self, tag=tag, digest=None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def check_tag(tag: str) -> None:
    """Raises `UsageError` if it is not a valid tag."""
    if not _TAG.fullmatch(tag):
        raise UsageError(
            f"{tag!r} is not a valid tag.",
            hint="A tag has up to 128 letters, digits, dots, dashes and underscores.",
        )


def split(name: str) -> tuple[str, str | None, str | None]:
    """The repository with its host, the tag and the digest; not validated, see `parse`."""
    rest, at, digest = name.partition("@")
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    return f"{head}{slash}{last}", tag if colon else None, digest if at else None


def parse(name: str) -> Reference:
    """Parses the name of an image. Raises `UsageError` if it is invalid."""
    path, tag, digest = split(name)
    host, repository = _split_host(path)
    if (
        not _HOST.fullmatch(host)
        or not _REPOSITORY.fullmatch(repository)
        or len(repository) > _MAX_REPOSITORY
        or (tag is not None and not _TAG.fullmatch(tag))
        or (digest is not None and not _DIGEST.fullmatch(digest))
    ):
        shown = _USER.sub("…@", name)
        raise UsageError(
            f"{shown!r} is not a valid image name.",
            hint="Put store: before the URL of a store."
            if name.startswith(("s3://", "gs://", "az://", "file://"))
            else "Use a lower-case name such as ghcr.io/acme/shop:1.4 or "
            "ghcr.io/acme/shop@sha256:….",
        )
    return Reference(host, repository, tag or (None if digest else LATEST), digest)


def names_host(name: str) -> bool:
    """Whether a name includes the registry."""
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def _split_host(path: str) -> tuple[str, str]:
    if not names_host(path):
        return HUB, path if "/" in path else f"library/{path}"
    host, _, repository = path.partition("/")
    if host in _HUB_ALIASES:
        return HUB, repository if "/" in repository else f"library/{repository}"
    return host, repository
