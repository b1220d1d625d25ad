"""What a store needs of the place where its objects are: small reads, streams, compare and swap.

A *name* is a relative POSIX path. A *tag* identifies what an object held when it was read; it is
what a conditional write is conditional on. Times are the place's own, not this machine's.
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
    """A small object that was read. modified: seconds since the epoch, by the place's clock."""

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

    Every method raises `Unavailable` if the place does not answer, `CredentialsRefused` if
    it refuses, `ConfigurationError` if there is no such bucket.
    """

    @property
    def url(self) -> str:
        """As a user would write it; without credentials."""

    def get(self, name: str) -> StoredObject | None:
        """A small object; None if there is none."""

    def read(self, name: str, start: int, length: int) -> Buffer:
        """Bytes of an object; fewer where it ends before. Raises `FileNotFoundError`."""

    def create(self, name: str, data: bytes) -> bool:
        """Writes an object that is not there yet; False, and nothing written, where it is."""

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Writes an object if it still has this tag; False, and nothing written, if not."""

    def write(self, name: str, chunks: Iterable[Buffer], size: int) -> None:
        """Writes an object of this size from a stream; it appears whole or not at all.

        Where the stream raises, nothing appears, and that error comes out.
        """

    def delete(self, names: Sequence[str]) -> None:
        """Removes objects; those that are not there are passed over."""

    def list(self, prefix: str) -> Iterator[Listed]:
        """The objects below a folder, such as ``content``; may lag behind what was written."""


def shown(url: str) -> str:
    """A URL without user information and query, which may hold credentials."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.split("?", 1)[0].partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else scheme
