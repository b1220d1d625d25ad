"""Putting state into an artifact: what is asked for, where it goes, and what came of it.

    with destination.embed(request) as made:    # made is whole and open, and has no name
        verdict = verify(made)                  # an error removes it
                                                # here it gets its name

What the state is put on, and the names of the result, are the destination's: `PexDestination`,
`WheelDestination`, `LayoutDestination`, `EngineDestination`, `RegistryDestination`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from bundler.artifacts.verify import Verdict
from bundler.errors import ToolFailed
from bundler.listener import SILENT, Listener
from bundler.state.artifact import Artifact
from bundler.state.bundle import Bundle
from bundler.state.manifest import ReadBack, RunRecord


class EmbedRequest(msgspec.Struct, frozen=True):
    """What to embed in an artifact of any kind.

    For images only: places: paths for the state directories that the user configured, by
    `Bundle.place`. hints: import roots to try first, relative to the working directory. every_byte:
    read all of the state back, even if the engine's or registry's digest would be enough.
    """

    bundles: tuple[Bundle, ...]
    record: RunRecord
    places: Mapping[str, str] = msgspec.field(default_factory=dict)
    hints: Sequence[str] = ()
    every_byte: bool = False
    listener: Listener = SILENT

    def read_back_as(self, how: ReadBack) -> EmbedRequest:
        """The same request, with a run record that says what is compared before the artifact is
        named."""
        record = msgspec.structs.replace(self.record, read_back=how)
        return msgspec.structs.replace(self, record=record)


class Destination(Protocol):
    """Where an artifact with its state goes."""

    def embed(self, request: EmbedRequest) -> AbstractContextManager[Artifact]:
        """Makes the artifact; it gets its name when the block ends without an error.

        Raises `ConfigurationError` if a place cannot be determined, `VerificationFailed` for a
        malformed base or a state that changed meanwhile, and what its kind raises.
        """


class EmbedResult(msgspec.Struct, frozen=True):
    """name: of the artifact that has the states now; the old one's if nothing changed."""

    name: str
    changed: bool
    verdict: Verdict

    @property
    def digest(self) -> str | None:
        return self.verdict.digest


def moved_meanwhile(name: str) -> ToolFailed:
    """A name that is updated in place may have got other code while the state was embedded."""
    return ToolFailed(
        f"{name} was replaced by another program meanwhile; it was left as it is now.",
        hint="Run the command again, to update the image that has the name now.",
    )
