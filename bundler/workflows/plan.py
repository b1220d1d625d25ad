"""What a refresh would change, before anything is published.

1. Everything is refreshed into a temporary folder. Nothing of the project changes.
2. The states are compared with those of each baseline: an artifact, a store, or what is published.
3. The code location is loaded with the states of each baseline and with the new ones.

`bundler.workflows.plan_file` ships exactly that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bundler.artifacts.baseline import holds_states, since
from bundler.artifacts.diff import Difference
from bundler.artifacts.extract import extract
from bundler.artifacts.open import open_artifact
from bundler.errors import BadData, ConfigurationError, VerificationFailed
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project
from bundler.refresh.checks import Baseline, shrunk
from bundler.refresh.definitions import describe_with
from bundler.refresh.directories import VERSIONED
from bundler.refresh.model import Component
from bundler.refresh.removals import (
    Removal,
    ShrunkState,
    counterparts,
    counts_assets,
    refused,
    removals,
    vanished,
)
from bundler.refresh.run import Refreshed, refresh
from bundler.state.artifact import Artifact
from bundler.state.bundle import STATE_DIRECTORY, paths_at
from bundler.state.definitions import Definitions, DefinitionsDifference, compare, merge
from bundler.state.directory import PublishedDirectories
from bundler.state.manifest import NonLocalKey
from bundler.state.statedir import StateDir

PUBLISHED = "what is published"
# Of plan files: another one when their content means something else.
FORMAT = 2
_ByProject = dict[str, Definitions]
_Held = Mapping[str, Baseline]


class PlanBaseline(msgspec.Struct, frozen=True):
    """A baseline's state when the plan was made.

    contents: the content digest of each state directory. code: a digest of everything but the
    state; None without any code.
    """

    name: str
    contents: dict[str, str]
    code: str | None = None


class PlannedChange(msgspec.Struct, frozen=True):
    """What would change compared with one baseline.

    definitions: None if the states are the same, or if there is no code location to load. shrunk:
    states that a refresh would refuse, compared with this baseline.
    """

    baseline: PlanBaseline
    states: Difference
    definitions: DefinitionsDifference | None = None
    removals: tuple[Removal, ...] = ()
    shrunk: tuple[ShrunkState, ...] = ()

    @property
    def differs(self) -> bool:
        return self.states.differs or bool(self.definitions and self.definitions.changes)

    def refusals(self) -> list[BadData]:
        """What a refresh would refuse without approval."""
        return [*(state.refusal() for state in self.shrunk), *refused(self.removals)]


class Plan(msgspec.Struct, frozen=True):
    """contents: the content digests of the new states, by place. expected: what each project's code
    location defines with them, by its name; empty if it was not loaded. not_refreshed: the keys
    whose states are not in the artifact. commit: of the code, if git knows it. locks: a digest of
    the files that say what is installed. projects: their names. states: the digest of the file that
    has the new states. format: of the file.
    """

    contents: dict[str, str]
    changes: tuple[PlannedChange, ...]
    expected: dict[str, Definitions] = {}
    not_refreshed: tuple[NonLocalKey, ...] = ()
    commit: str | None = None
    locks: str = ""
    projects: tuple[str, ...] = ()
    states: str = ""
    format: int = FORMAT

    @property
    def differs(self) -> bool:
        return any(change.differs for change in self.changes)


def make(
    projects: Sequence[Project],
    options: RefreshOptions,
    baselines: Sequence[str],
    scratch: Path,
    listener: Listener,
    *,
    expects: bool = False,
) -> tuple[Plan, Refreshed]:
    """Refreshes into `scratch` and compares.

    expects: loads the code location with the new states even if nothing changes. Raises as
    `bundler.refresh.run.refresh` does, but not for a state that has shrunk.
    """
    _refuse_one_name(projects)
    if baselines and options.baseline is None and holds_states(baselines[0]):
        options = msgspec.structs.replace(options, baseline=baselines[0])
    refreshed = refresh(projects, options, listener, into=scratch / "states")
    new = PublishedDirectories(
        "the refreshed states", {bundle.place: bundle.root for bundle in refreshed.bundles}
    )
    listener.phase("Comparing")
    with ExitStack() as stack:
        names = tuple(baselines) or (PUBLISHED,)
        opened = [stack.enter_context(_opened(name, refreshed)) for name in names]
        states = [_states_of(it, scratch / f"baseline-{n}") for n, it in enumerate(opened)]
        places = [source.place for source in refreshed.found]
        differences = [_of_projects(since(it, new, places), it, refreshed) for it in opened]
        expected = [as_it_is(name, it) for name, it in zip(names, opened, strict=True)]
    loader = _PlanLoader(projects, options, refreshed, listener)
    changes = list(loader.changes(expected, differences, states, expects=expects))
    changes[0] = _with_others(changes[0], changes, refreshed.shrunk)
    contents = {bundle.place: bundle.manifest.content_digest for bundle in refreshed.bundles}
    expected_then = {name: it.portable() for name, it in loader.expected.items()}
    others = tuple(
        key for bundle in refreshed.bundles for key in bundle.manifest.predicate.contents.non_local
    )
    return Plan(contents, tuple(changes), expected_then, others), refreshed


def _refuse_one_name(projects: Sequence[Project]) -> None:
    """Definitions are listed by the name of their project."""
    roots: dict[str, Path] = {}
    for project in projects:
        other = roots.setdefault(project.name, project.root)
        if other != project.root:
            raise ConfigurationError(
                f"The projects in {other} and {project.root} are both named {project.name}.",
                hint="Rename one in its pyproject.toml, or plan them one at a time with --project.",
            )


def _with_others(
    first: PlannedChange, changes: Sequence[PlannedChange], errors: Sequence[BadData]
) -> PlannedChange:
    """With the states that have shrunk compared only with a baseline that the plan does not name.

    errors: what the refresh found.
    """
    shown = {state.key for change in changes for state in change.shrunk}
    others = tuple(
        ShrunkState(
            it.key or "", f"{it.what} A refresh compares it with another baseline.", it.hint
        )
        for it in errors
        if it.key not in shown
    )
    return msgspec.structs.replace(first, shrunk=(*first.shrunk, *others))


def _opened(name: str, refreshed: Refreshed) -> Artifact:
    if name != PUBLISHED:
        return open_artifact(name)
    return PublishedDirectories(PUBLISHED, {it.place: it.directory for it in refreshed.found})


def _states_of(artifact: Artifact, folder: Path) -> dict[str, StateDir]:
    """The state directories of a baseline on disk, by their paths in it."""
    if not artifact.state_directories():
        return {}
    return {item.path: StateDir(item.target, item.path) for item in extract(artifact, folder)}


def _of_projects(found: Difference, before: Artifact, refreshed: Refreshed) -> Difference:
    """Without versioned keys, whose states a store has too: a refresh leaves them alone."""
    if before.kind != "store":
        return found
    ignored = {key for source in refreshed.found for key in source.keys(VERSIONED)}
    keys = tuple(key for key in found.keys if key.key not in ignored)
    return msgspec.structs.replace(found, keys=keys)


def as_it_is(name: str, artifact: Artifact) -> PlanBaseline:
    """A baseline's identity, which shows later whether it has changed."""
    contents = {path: it.content_digest for path, it in artifact.manifests().items()}
    return PlanBaseline(name, contents, artifact.files_below())


class _PlanLoader:
    """Loads the projects' code locations with the states of baselines and with the new ones.

    expected: what they define with the new ones, once `changes` has run.
    """

    def __init__(
        self,
        projects: Sequence[Project],
        options: RefreshOptions,
        refreshed: Refreshed,
        listener: Listener,
    ) -> None:
        self._projects = [project for project in projects if project.dagster is not None]
        self._options = options
        self._refreshed = refreshed
        self._new = {it.place: _held(StateDir(it.root, it.place)) for it in refreshed.bundles}
        self._listener = listener
        self.expected: _ByProject = {}

    def changes(
        self,
        expected: Sequence[PlanBaseline],
        differences: Sequence[Difference],
        states: Sequence[Mapping[str, StateDir]],
        *,
        expects: bool,
    ) -> Iterator[PlannedChange]:
        """What would change compared with each baseline, in their order."""
        is_loaded = [bool(difference.keys and self._projects) for difference in differences]
        several = [there for there, wanted in zip(states, is_loaded, strict=True) if wanted]
        after, *others = self._describe(several) if several or expects else ({},)
        _refuse_error(after, "")
        self.expected = after
        loaded = iter(others)
        for baseline, difference, there, wanted in zip(
            expected, differences, states, is_loaded, strict=True
        ):
            if not wanted:
                yield PlannedChange(baseline, difference, shrunk=tuple(self._shrunk(there, {})))
                continue
            before = next(loaded)
            _refuse_error(before, baseline.name)
            changed = compare(merge(before), merge(after))
            removed = (*self._removals(before, after), *self._vanished(there))
            smaller = tuple(self._shrunk(there, before))
            yield PlannedChange(baseline, difference, changed, removed, smaller)

    def _describe(self, several: Sequence[Mapping[str, StateDir]]) -> list[_ByProject]:
        """Describes the definitions with the new states, then with those of each baseline."""
        self._listener.phase("Loading the code location with the old and the new states")
        found: list[_ByProject] = [{} for _ in (None, *several)]
        for project in self._projects:
            place = place_of(project)
            new = self._new.get(place, {})
            old = [_paired(self._states_at(there, place), new) for there in several]
            given = [{key: it.directory for key, it in states.items()} for states in (new, *old)]
            described = describe_with(project, given, self._options.inside)
            for by_project, one in zip(found, described, strict=True):
                by_project[project.name] = one
        return found

    def _removals(self, before: _ByProject, after: _ByProject) -> Iterator[Removal]:
        for project in self._projects:
            options = self._options.over(project.config.refresh)
            found = removals(before[project.name], after[project.name], options)
            yield from _located(found, place_of(project))

    def _vanished(self, there: Mapping[str, StateDir]) -> Iterator[Removal]:
        """Each project's keys in a baseline for which it has no component any more."""
        for project in self._projects:
            place = place_of(project)
            options = self._options.over(project.config.refresh)
            old, new = self._states_at(there, place), self._new.get(place, {})
            yield from _located(vanished(old, new, self._components(place), options), place)

    def _components(self, place: str) -> dict[str, Component]:
        """The components whose states are at a place, by key."""
        found = self._refreshed.found
        directories = {source.directory for source in found if source.place == place}
        return {
            component.key: component
            for source in found
            if source.directory in directories
            for component in source.components
        }

    def _states_at(self, there: Mapping[str, StateDir], place: str) -> _Held:
        """The states that a baseline has at a place, by key."""
        places = [source.place for source in self._refreshed.found]
        same = [there[path] for path in paths_at(there, place, places)]
        return {key: state for item in same for key, state in _held(item).items()}

    def _shrunk(self, there: Mapping[str, StateDir], before: _ByProject) -> Iterator[ShrunkState]:
        """The new states that are much smaller than a baseline's, unless their removals count."""
        names = {place_of(project): project.name for project in self._projects}
        for place, new in self._new.items():
            options = self._refreshed.options[place]
            counted = before.get(names.get(place, ""), Definitions({}))
            old, components = self._states_at(there, place), self._components(place)
            for key in sorted(new.keys() & old.keys() & components.keys()):
                error = shrunk(components[key], new[key], options.of_key(key), old[key])
                if error is not None and not counts_assets(counted, key, options):
                    yield ShrunkState(key, error.what, error.hint)


def place_of(project: Project) -> str:
    defs = project.dagster.defs if project.dagster is not None else ""
    return f"{defs.replace('.', '/')}/{STATE_DIRECTORY}"


def _located(found: Sequence[Removal], place: str) -> Iterator[Removal]:
    return (msgspec.structs.replace(removal, place=place) for removal in found)


def _held(directory: StateDir) -> _Held:
    published = directory.read()
    states = published.manifest.states if published is not None else ()
    return {state.key: Baseline(state, directory.path / state.path) for state in states}


def _paired(old: _Held, new: _Held) -> _Held:
    """The states of a baseline for which the code location here has keys."""
    return {key: old[before] for key, before in counterparts(old, new).items()}


def _refuse_error(found: _ByProject, baseline: str) -> None:
    for name, described in found.items():
        if described.error is not None and baseline:
            raise VerificationFailed(
                f"{name} does not load with the states of {baseline}: {described.error}",
                hint="Name a baseline that this code can load.",
            )
        if described.error is not None:
            raise BadData(
                f"{name} does not load with the refreshed states: {described.error}",
                hint="Check what the API returns, and whether the code loads: dg check defs",
            )
