"""What a refresh would change, before anything is published; and shipping exactly that.

1. Everything is refreshed into a temporary folder. Nothing of the project changes.
2. The states are compared with those of each baseline: an artifact, or what is published.
3. The code location is loaded with the states of each baseline and with the new ones.

A plan file is a tar with ``plan.json`` and ``states.tar``. Building from it fails if a baseline is
not what it was: then the plan describes a change that nobody makes any more.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from bundler.artifacts.diff import Difference, KeyDifference, diff
from bundler.artifacts.extract import extract
from bundler.artifacts.names import ArtifactName
from bundler.artifacts.open import open_artifact
from bundler.errors import BadData, VerificationFailed, raise_all
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project
from bundler.refresh.definitions import States, describe_with
from bundler.refresh.removals import Removal, allowed_names, refused, removals
from bundler.refresh.run import Refreshed, refresh
from bundler.state.artifact import Artifact
from bundler.state.bundle import STATE_DIRECTORY
from bundler.state.definitions import Definitions, DefinitionsDifference, compare, merge
from bundler.state.directory import PublishedDirectories
from bundler.state.manifest import DirectoryRefresh, parse
from bundler.state.statedir import StateDir
from bundler.state.tree import hash_stream
from bundler.system.atomic import io_errors, replaced_file

PUBLISHED = "what is published"
_PLAN, _STATES = "plan.json", "states.tar"
_MOST_PLAN_BYTES = 256 * 1024 * 1024
_ByProject = dict[str, Definitions]


class PlanBaseline(msgspec.Struct, frozen=True):
    """A baseline as it was. contents: the content digest of each state directory. code: a digest of
    all but the state; None for what has no code."""

    name: str
    contents: dict[str, str]
    code: str | None = None


class PlannedChange(msgspec.Struct, frozen=True):
    """What would change against one baseline.

    definitions: None if the states are the same, or if there is no code location to load.
    """

    baseline: PlanBaseline
    states: Difference
    definitions: DefinitionsDifference | None = None
    removals: tuple[Removal, ...] = ()

    @property
    def differs(self) -> bool:
        return self.states.differs or bool(self.definitions and self.definitions.changes)


class Plan(msgspec.Struct, frozen=True):
    """contents: the content digests of the new states, by place."""

    contents: dict[str, str]
    changes: tuple[PlannedChange, ...]
    states: str = ""

    @property
    def differs(self) -> bool:
        return any(change.differs for change in self.changes)

    def refusals(self) -> list[BadData]:
        return [error for change in self.changes for error in refused(change.removals)]


def make(
    projects: Sequence[Project],
    options: RefreshOptions,
    baselines: Sequence[str],
    scratch: Path,
    listener: Listener,
) -> tuple[Plan, Refreshed]:
    """Refreshes into `scratch` and compares. Raises as `bundler.refresh.run.refresh` does."""
    if baselines and options.baseline is None:
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
        differences = [_difference(it, new) for it in opened]
        expected = [_expected(name, it) for name, it in zip(names, opened, strict=True)]
    loader = _Loader(projects, options, refreshed, listener)
    changes = loader.changes(expected, differences, states)
    contents = {bundle.place: bundle.manifest.content_digest for bundle in refreshed.bundles}
    return Plan(contents, tuple(changes)), refreshed


def _opened(name: str, refreshed: Refreshed) -> Artifact:
    if name != PUBLISHED:
        return open_artifact(name)
    return PublishedDirectories(PUBLISHED, {it.place: it.directory for it in refreshed.found})


def _states_of(artifact: Artifact, folder: Path) -> dict[str, StateDir]:
    """The state directories of a baseline on disk, by their paths in it."""
    if not artifact.state_directories():
        return {}
    return {item.path: StateDir(item.target, item.path) for item in extract(artifact, folder)}


def _difference(before: Artifact, after: Artifact) -> Difference:
    if before.state_directories():
        return diff(before, after)
    added = (
        KeyDifference(state.key, "added", None, state.size)
        for directory in after.state_directories()
        for state in parse(directory.read_manifest() or b"", after.name).states
    )
    return Difference(before.name, after.name, tuple(added), 0)


def _expected(name: str, artifact: Artifact) -> PlanBaseline:
    contents = {}
    for directory in artifact.state_directories():
        raw = directory.read_manifest()
        if raw is not None:
            contents[directory.path] = parse(raw, artifact.name).content_digest
    return PlanBaseline(name, contents, artifact.files_below())


class _Loader:
    """Loads the projects' code locations with the states of baselines and with the new ones."""

    def __init__(
        self,
        projects: Sequence[Project],
        options: RefreshOptions,
        refreshed: Refreshed,
        listener: Listener,
    ) -> None:
        self._projects = [project for project in projects if project.dagster is not None]
        self._options = options
        self._new = {bundle.place: bundle.root for bundle in refreshed.bundles}
        self._listener = listener

    def changes(
        self,
        expected: Sequence[PlanBaseline],
        differences: Sequence[Difference],
        states: Sequence[Mapping[str, StateDir]],
    ) -> Iterator[PlannedChange]:
        """What would change against each baseline, in their order."""
        is_loaded = [bool(difference.keys and self._projects) for difference in differences]
        several = [there for there, wanted in zip(states, is_loaded, strict=True) if wanted]
        after, *others = self._describe(several) if several else ({},)
        _refuse_error(after, "")
        loaded = iter(others)
        for baseline, difference, wanted in zip(expected, differences, is_loaded, strict=True):
            if not wanted:
                yield PlannedChange(baseline, difference)
                continue
            before = next(loaded)
            _refuse_error(before, baseline.name)
            changed = compare(merge(before), merge(after))
            yield PlannedChange(baseline, difference, changed, tuple(self._removals(before, after)))

    def _describe(self, several: Sequence[Mapping[str, StateDir]]) -> list[_ByProject]:
        """With the new states, then with those of each baseline."""
        self._listener.phase("Loading the code location with the states of before and after")
        found: list[_ByProject] = [{} for _ in (None, *several)]
        for project in self._projects:
            place = _place_of(project)
            new = _states_in(self._new.get(place))
            old = [_baseline_states(there, place, new) for there in several]
            described = describe_with(project, [new, *old], self._options.inside)
            for by_project, one in zip(found, described, strict=True):
                by_project[project.name] = one
        return found

    def _removals(self, before: _ByProject, after: _ByProject) -> Iterator[Removal]:
        for project in self._projects:
            options = self._options.over(project.config.refresh)
            yield from removals(before[project.name], after[project.name], options)


def _place_of(project: Project) -> str:
    defs = project.dagster.defs if project.dagster is not None else ""
    return f"{defs.replace('.', '/')}/{STATE_DIRECTORY}"


def _states_in(directory: Path | None) -> dict[str, Path]:
    published = StateDir(directory, "").read() if directory is not None else None
    if published is None or directory is None:
        return {}
    return {state.key: directory / state.path for state in published.manifest.states}


def _baseline_states(there: Mapping[str, StateDir], place: str, new: States) -> dict[str, Path]:
    """The states of a baseline that the code location here has keys for."""
    same = [
        item.path for path, item in there.items() if f"/{path.strip('/')}".endswith(f"/{place}")
    ]
    if not same and len(there) == 1:
        same = [item.path for item in there.values()]
    return {key: path for item in same for key, path in _states_in(item).items() if key in new}


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
                hint="Check what the API answers, and whether the code loads: dg check defs",
            )


# --- the file ---------------------------------------------------------------------------------


def save(
    plan: Plan,
    refreshed: Refreshed,
    projects: Sequence[Project],
    path: Path,
    *,
    scratch: Path,
    listener: Listener,
) -> None:
    """Writes the plan with its states. Raises `InputOutputError`."""
    from bundler.workflows.export import export_states

    states = scratch / _STATES
    export_states(refreshed, projects, ArtifactName("path", str(states)), listener)
    with states.open("rb") as stream:
        digest, _ = hash_stream(stream)
    raw = msgspec.json.encode(msgspec.structs.replace(plan, states=digest))
    info = tarfile.TarInfo(_PLAN)
    info.size = len(raw)
    with (
        io_errors(path),
        replaced_file(path) as target,
        tarfile.open(fileobj=target, mode="w") as archive,
    ):
        archive.addfile(info, io.BytesIO(raw))
        archive.add(states, arcname=_STATES, filter=_without_owner)


def _without_owner(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info


def carry_out(
    path: Path,
    projects: Sequence[Project],
    options: RefreshOptions,
    listener: Listener,
    held: ExitStack,
) -> Refreshed:
    """The states of a plan file as bundles of the projects, if it can still be carried out.

    held: the bundles' files exist until it is closed.
    Raises `VerificationFailed` for a file that is no plan and for a baseline that has moved, and
    `BadData` for removals that need approval.
    """
    from bundler.workflows.state_from import replay

    with tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        plan = _read(path, Path(scratch))
        for change in plan.changes:
            _refuse_moved(change.baseline, plan, projects)
        removed = _judged(plan, options.allow_removed)
        raise_all(refused(removed))
        states = str(Path(scratch) / _STATES)
        refreshed = replay(projects, states, listener, held, keeps_record=True)
    record = tuple(_with_removed(directory, removed) for directory in refreshed.record)
    return msgspec.structs.replace(refreshed, record=record)


def _judged(plan: Plan, allowed: Sequence[str]) -> list[Removal]:
    """The plan's removals; approval is given when it is made or when it is carried out."""
    return [
        msgspec.structs.replace(it, allowed=it.allowed or it.is_allowed_by(allowed))
        for change in plan.changes
        for it in change.removals
    ]


def _with_removed(directory: DirectoryRefresh, removed: Sequence[Removal]) -> DirectoryRefresh:
    keys = tuple(
        msgspec.structs.replace(key, removed=allowed_names(removed, key.key))
        for key in directory.keys
    )
    return msgspec.structs.replace(directory, keys=keys)


def _read(path: Path, scratch: Path) -> Plan:
    malformed = VerificationFailed(
        f"{path} is not a plan.", hint="Make one: state-bundler plan --out plan.bin"
    )
    with io_errors(path), path.open("rb") as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                raw = archive.extractfile(_PLAN)
                states = archive.extractfile(_STATES)
                if raw is None or states is None:
                    raise malformed
                plan = msgspec.json.decode(raw.read(_MOST_PLAN_BYTES), type=Plan)
                digest = _copy(states, scratch / _STATES)
        except (tarfile.TarError, KeyError, ValueError, msgspec.MsgspecError) as error:
            raise malformed from error
    if digest != plan.states:
        raise VerificationFailed(f"{path} was altered: its states are not those of its plan.")
    return plan


def _copy(source: Any, target: Path) -> str:
    digest = hashlib.sha256()
    with target.open("wb") as stream:
        while data := source.read(1024 * 1024):
            digest.update(data)
            stream.write(data)
    return digest.hexdigest()


def _refuse_moved(was: PlanBaseline, plan: Plan, projects: Sequence[Project]) -> None:
    """A baseline may be what it was, or hold the planned states already."""
    with _opened_now(was.name, projects) as artifact:
        now = _expected(was.name, artifact)
    has_planned = sorted(now.contents.values()) == sorted(plan.contents.values())
    if now == was or (has_planned and now.code == was.code):
        return
    what = "its code" if now.contents == was.contents else "its states"
    raise VerificationFailed(
        f"The plan is stale: {was.name} has changed since it was made ({what}).",
        hint="Make a new plan: state-bundler plan --out plan.bin",
    )


def _opened_now(name: str, projects: Sequence[Project]) -> Artifact:
    if name != PUBLISHED:
        return open_artifact(name)
    from bundler.workflows.state_from import configured

    targets = [target for project in projects for target in configured(project)]
    return PublishedDirectories(PUBLISHED, {target.place: target.path for target in targets})
