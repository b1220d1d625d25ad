"""The baseline of a refresh: an artifact or a directory with earlier states."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bundler.artifacts.extract import Extracted, extract
from bundler.artifacts.open import open_artifact
from bundler.errors import ConfigurationError
from bundler.state.bundle import is_at
from bundler.state.statedir import StateDir


@contextmanager
def opened(name: str | None) -> Iterator[tuple[Extracted, ...]]:
    """The states of the artifact with this name, verified, in a folder that exists inside the
    block.

    Raises `UsageError` or `ToolFailed` if there is no such artifact, `VerificationFailed` if it
    does not match its manifests.
    """
    if name is None:
        yield ()
        return
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        with open_artifact(name) as artifact:
            extracted = extract(artifact, Path(scratch) / "states")
        yield extracted


def of_place(extracted: Sequence[Extracted], place: str, name: str) -> StateDir:
    """The state directory in it that the program looks for at this place.

    Raises `ConfigurationError` if there is none.
    """
    found = [item for item in extracted if is_at(item.path, place)]
    if not found and len(extracted) == 1:
        found = list(extracted)
    if not found:
        raise ConfigurationError(
            f"The baseline {name} contains no states of {place}.",
            hint=f"It contains: {', '.join(item.path for item in extracted)}.",
        )
    return StateDir(found[0].target, place)


def holds_states(name: str) -> bool:
    """Whether an artifact contains any state. The first one to be deployed replaces one without."""
    with open_artifact(name) as artifact:
        return any(it.read_manifest() is not None for it in artifact.state_directories())
