"""What every artifact offers to those that read state out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

import msgspec

from bundler.state.manifest import Claim, Manifest, RunRecord

if TYPE_CHECKING:
    from typing_extensions import Self


LABEL_STATES = "io.state-bundler.states"


LABEL_RUN_RECORD = "io.state-bundler.run-record"


class Member(msgspec.Struct, frozen=True):
    """Something below a state directory.

    path: POSIX, relative to the state directory. size: in bytes, 0 for anything that is not a file.
    open: a stream over the bytes; valid only until the next member is asked for. mode: permission
    bits, None if the artifact holds none.
    """

    path: str
    kind: Literal["file", "directory", "other"]
    size: int
    open: Callable[[], BinaryIO]
    mode: int | None = None


class StateDirectory(Protocol):
    """One ``.local_defs_state`` in an artifact."""

    @property
    def path(self) -> str:
        """POSIX, as the artifact names it; absolute in an image, relative in a PEX."""

    @property
    def sealed(self) -> bool:
        """Its files need not be read: the artifact's holder has hashed them by itself, to the
        digest of what was made of bytes that the manifest covers. The manifest is read."""

    @property
    def concurrent(self) -> bool:
        """Its members can be opened at any time and by several threads concurrently."""

    def read_manifest(self) -> bytes | None:
        """The bytes of ``@manifest.json``; None if there is none."""

    def members(self) -> Iterator[Member]:
        """Everything below it, the manifest included. Directories may be left out."""


class Artifact(Protocol):
    """An artifact that is open for reading; a context manager."""

    @property
    def name(self) -> str:
        """As the user named it."""

    @property
    def kind(self) -> str:
        """Such as ``pex`` or ``oci``; is in output."""

    @property
    def digest(self) -> str | None:
        """What identifies this artifact (an image's digest, a file's sha256), if it is cheap."""

    @property
    def proof(self) -> str:
        """What `verify` compares: every byte, or a digest that the artifact's holder computed."""

    def labels(self) -> Mapping[str, str]:
        """What it says of itself by name: an image's labels, a PEX's build properties."""

    def claims(self) -> Sequence[Claim] | None:
        """What its label says of its state directories; None if it has no such label."""

    def run_record(self) -> RunRecord | None:
        """How its state got there; None if it does not say."""

    def state_directories(self) -> Sequence[StateDirectory]:
        """Every state directory that is where the program would look, or anywhere else."""

    def problems(self, found: Mapping[str, Manifest]) -> Iterable[str]:
        """What is wrong with the artifact itself, as messages. found: its manifests, by path."""

    def other_platforms(self) -> Iterable[Artifact]:
        """The other images of an index; each is open as long as this one is."""

    def files_below(self) -> str | None:
        """A digest of its code: all but the state. None if that is not known."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class OneArtifact:
    """What most kinds of artifacts have in common: no labels, no platforms, nothing to close."""

    digest: str | None = None
    proof: str = "every byte read"

    def labels(self) -> Mapping[str, str]:
        return {}

    def claims(self) -> Sequence[Claim] | None:
        return None

    def problems(self, found: Mapping[str, Manifest]) -> Iterable[str]:
        del found
        return ()

    def other_platforms(self) -> Iterable[Artifact]:
        return ()

    def files_below(self) -> str | None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass
