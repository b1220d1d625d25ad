"""What changes a store with the help of artifacts: a push of their states, a prune that spares
their versions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bundler.artifacts.extract import extract
from bundler.artifacts.open import open_artifact
from bundler.project.projects import projects_below, projects_of
from bundler.project.survey import survey
from bundler.state.directory import find_state_directories
from bundler.store.local import published, select
from bundler.store.prune import Pruned, PruneRules, referenced_by
from bundler.store.prune import prune as carry_out
from bundler.store.pushing import NewState
from bundler.store.store import Store


@contextmanager
def states_of(root: Path, artifact: str | None, keys: Sequence[str]) -> Iterator[list[NewState]]:
    """The published states of a project, or of an artifact; their files stay until the end.

    keys: all if none is named.
    """
    if artifact is None:
        yield select(published(root, _own(root.resolve())), keys)
        return
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        folder = Path(scratch) / "states"
        with open_artifact(artifact) as found:
            extract(found, folder)
        yield select(published(folder), keys)


def _own(root: Path) -> list[Path]:
    """The state directories of the projects in a folder: others below it are copies.

    All that are found unless each of the projects' is: the files may not say where one is.
    """
    surveys = [survey(path) for path in projects_of(root) or projects_below(root)]
    own = {each.root / path for each in surveys for path in each.state_directories}
    found = find_state_directories(root)
    return sorted(own) if own and own.issubset(found) else found


def prune(
    store: Store, artifacts: Sequence[str], *, keep: int, older_than: float, dry_run: bool
) -> Pruned:
    """Removes old versions, but none that one of these artifacts refers to."""
    referenced: set[str] = set()
    for name in artifacts:
        with open_artifact(name) as artifact:
            referenced |= referenced_by(artifact)
    rules = PruneRules(keep, older_than, frozenset(referenced))
    return carry_out(store, rules, dry_run=dry_run)
