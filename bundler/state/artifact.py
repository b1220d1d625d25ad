"""The interface of every artifact for code that reads state from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, TypeVar

import msgspec

from bundler.errors import BundlerError
from bundler.state.manifest import Claim, Manifest, RunRecord, parse

if TYPE_CHECKING:
    from typing_extensions import Self

Kind = Literal["file", "directory", "other"]

LABEL_STATES = "io.state-bundler.states"
LABEL_RUN_RECORD = "io.state-bundler.run-record"
# Of a PEX: pex's code hash of the files outside the state directories.
LABEL_CODE = "io.state-bundler.code"


class Member(msgspec.Struct, frozen=True):
    """An entry below a state directory.

    path: POSIX, relative to the state directory. size: in bytes, 0 for anything that is not a file.
    open: a stream over the bytes, valid only until the next member is requested. mode: permission
    bits, None if the artifact has none. sha256: in hexadecimal, if the file has to be read for
    another hash anyway; None to read it with `open`.
    """

    path: str
    kind: Kind
    size: int
    open: Callable[[], BinaryIO]
    mode: int | None = None
    sha256: Callable[[], str | None] = lambda: None


class StateDirectory(Protocol):
    """One ``.local_defs_state`` in an artifact."""

    @property
    def path(self) -> str:
        """POSIX, as the artifact names it; absolute in an image, relative in a PEX."""

    @property
    def sealed(self) -> bool:
        """Whether its files need not be read: the engine or registry hashed them itself, and the
        digest is that of the layer we made from bytes that the manifest covers. The manifest is
        still read."""

    @property
    def concurrent(self) -> bool:
        """Whether several threads can open its members at any time."""

    def read_manifest(self) -> bytes | None:
        """The bytes of ``@manifest.json``; None if there is none."""

    def members(self) -> Iterator[Member]:
        """Everything below it, including the manifest. Directories may be left out."""


class Artifact(ABC):
    """An artifact that is open for reading; a context manager.

    name: as the user named it. kind: such as ``pex`` or ``oci``; shown in output. digest: the
    identity (an image's digest, a file's sha256), if it is cheap to get. proof: what `verify`
    compares: every byte, or a digest that the engine or registry computed.
    """

    name: str
    kind: str
    digest: str | None = None
    proof: str = "every byte read"

    @abstractmethod
    def run_record(self) -> RunRecord | None:
        """How its state was made; None if it does not say."""

    @abstractmethod
    def state_directories(self) -> Sequence[StateDirectory]:
        """Every state directory, whether the program would look there or not."""

    def manifests(self) -> dict[str, Manifest]:
        """By the path of each state directory that has one. Raises `VerificationFailed`."""
        return {
            directory.path: parse(raw, f"{self.name}: the manifest in {directory.path}")
            for directory in self.state_directories()
            if (raw := directory.read_manifest()) is not None
        }

    def labels(self) -> Mapping[str, str]:
        """Named metadata: an image's labels, a PEX's build properties."""
        return {}

    def claims(self) -> Sequence[Claim] | None:
        """What its label says about its state directories; None if it has no such label."""
        return None

    def problems(self, found: Mapping[str, Manifest]) -> Iterable[str]:
        """Problems of the artifact itself, as messages. found: its manifests, by path."""
        del found
        return ()

    def other_platforms(self) -> Iterable[Artifact]:
        """The images of the other platforms of an index; each is open as long as this one is."""
        return ()

    def files_below(self) -> str | None:
        """A digest of its code, which is everything but the state. None if that is not known."""
        return None

    def published_mark(self) -> object:
        """Differs from what it was before if other state has been published in it since."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        del exc  # most kinds have nothing to close


_Read = TypeVar("_Read")


class Marked(Protocol):
    """See `Artifact.published_mark`."""

    def published_mark(self) -> object: ...


def read_settled(artifact: Marked, read: Callable[[], _Read]) -> _Read:
    """What `read` reads from an artifact, read again if state was published there meanwhile.

    Nobody locks a state directory to read it, so a manifest may be older than the states.
    """
    while True:
        before = artifact.published_mark()
        try:
            result = read()
        except BundlerError:
            if artifact.published_mark() == before:
                raise
        else:
            if artifact.published_mark() == before:
                return result
