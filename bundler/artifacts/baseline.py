"""The baseline of a refresh: an artifact or a directory with earlier states."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bundler.artifacts.diff import Difference, KeyDifference, diff, manifest_of
from bundler.artifacts.extract import Extracted, extract
from bundler.artifacts.open import open_artifact
from bundler.errors import ConfigurationError
from bundler.state.artifact import Artifact
from bundler.state.bundle import paths_at
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


def of_place(
    extracted: Sequence[Extracted], place: str, places: Sequence[str], name: str
) -> StateDir:
    """The state directory in it that the program looks for at this place.

    places: of all projects that are refreshed. Raises `ConfigurationError` for none and for
    several.
    """
    targets = {item.path: item.target for item in extracted}
    found = paths_at(targets, place, places)
    if len(found) == 1 and places.count(place) == 1:
        return StateDir(targets[found[0]], place)
    if found and places.count(place) > 1:
        raise ConfigurationError(
            f"The baseline {name} contains states for {place}, where several projects have theirs.",
            hint="Refresh each of these projects alone: --project DIR --baseline ARTIFACT",
        )
    raise ConfigurationError(
        f"The baseline {name} contains {'several' if found else 'no'} states for {place}.",
        hint=_how_to_pass_one(name, list(targets)),
    )


def _how_to_pass_one(name: str, paths: Sequence[str]) -> str:
    here = [Path(name, path.strip("/")) for path in paths]
    if all(path.is_dir() for path in here):
        contents = ", ".join(map(str, here))
        return f"It contains: {contents}. Pass one of these directories with --baseline."
    return (
        f"It contains: {', '.join(paths)}. Extract it (`state-bundler extract {shlex.quote(name)} "
        "-o states`) and pass one of the directories with --baseline."
    )


def since(before: Artifact, after: Artifact, places: Sequence[str]) -> Difference:
    """What changed since a baseline, of which only the states at these places are compared."""
    paths = {item.path for item in before.state_directories()}
    own = {path for place in places for path in paths_at(paths, place, places)}
    if own:
        return diff(before, after, only=own)
    added = (
        KeyDifference(state.key, "added", None, state.size)
        for directory in after.state_directories()
        for state in manifest_of(directory, after.name).states
    )
    return Difference(before.name, after.name, tuple(added), 0)


def holds_states(name: str) -> bool:
    """Whether an artifact contains any state. The first one to be deployed replaces one without."""
    with open_artifact(name) as artifact:
        return any(it.read_manifest() is not None for it in artifact.state_directories())
