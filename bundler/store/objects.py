"""What a store requires of its bucket or folder: small reads, streams, compare and swap.

A *name* is a relative POSIX path. A *tag* identifies the contents of an object when it was read,
and makes a later write conditional. Times are the bucket's, not this machine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# Anything that has bytes and can be written without a copy.
Buffer = Any

SCHEMES = ("s3", "gs", "az", "file")


@dataclass(frozen=True)
class StoredObject:
    """A small object that was read. modified: seconds since the epoch, by the bucket's clock."""

    data: bytes
    tag: str
    modified: float


@dataclass(frozen=True)
class Listed:
    """An object that a listing named. size: in bytes; modified: as in `StoredObject`."""

    name: str
    size: int
    modified: float


class Objects(Protocol):
    """A bucket, or a folder that serves as one.

    Every method raises `Unavailable` if it does not answer, `CredentialsRefused` if it refuses,
    `ConfigurationError` if there is no such bucket.
    """

    @property
    def url(self) -> str:
        """As a user would write it; without credentials."""

    def get(self, name: str) -> StoredObject | None:
        """A small object; None if it does not exist."""

    def read(self, name: str, start: int, length: int) -> Buffer:
        """Bytes of an object; fewer if it ends before. Raises `FileNotFoundError`."""

    def exists(self, name: str) -> bool:
        """Whether there is an object with this name."""

    def create(self, name: str, data: bytes) -> bool:
        """Writes a new object; returns False, and writes nothing, if it exists."""

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Writes an object if it still has this tag; otherwise returns False, and writes
        nothing."""

    def write(self, name: str, chunks: Iterable[Buffer], size: int) -> None:
        """Writes an object of this size from a stream; it appears complete or not at all.

        If the stream raises, nothing appears, and that error is raised.
        """

    def delete(self, names: Sequence[str]) -> None:
        """Deletes objects; ignores those that do not exist."""

    def list(self, prefix: str) -> Iterator[Listed]:
        """The objects below a folder, such as ``content``; the listing may be outdated."""


def shown(url: str) -> str:
    """A URL without user information and query, which may contain credentials."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.split("?", 1)[0].partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else scheme
