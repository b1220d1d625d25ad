"""``--defer-from``: the dbt projects in an artifact defer to those of another one.

dbt can use a previous run's results for what it does not build: it reads that run's manifest, from
the directory that ``DbtProject`` calls `state_path`. Dagster+ puts production's manifest there;
here it comes from the artifact that is in production.

1. The artifact is verified and its states are extracted to a temporary folder.
2. Each dbt project with a `state_path` gets the manifest that the artifact has for its key.
3. That happens in copies of the states: the project's own state directories stay unchanged.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bundler.artifacts.extract import extract
from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import ConfigurationError, VerificationFailed
from bundler.listener import Listener
from bundler.project.options import KeyOptions
from bundler.refresh.checks import semantic_digest
from bundler.refresh.dbt_projects import PARSED, target_directories
from bundler.refresh.model import Component
from bundler.refresh.run import Refreshed
from bundler.refresh.scratch import scratch_folder
from bundler.refresh.vendors import kind_of
from bundler.state.bundle import Bundle, paths_at
from bundler.state.manifest import Deferral, DirectoryRefresh, State, state_of
from bundler.state.statedir import StateDir
from bundler.state.tree import name_problem, scan
from bundler.system.atomic import io_errors
from bundler.workflows.state_from import origin_of

_StateName = tuple[str, str]  # the place of its state directory, and its key


class _Production(msgspec.Struct, frozen=True):
    """A dbt project in production, and the component here that defers to it.

    manifest: the file. state: the dirHash of its state. origin: the artifact, for the record.
    """

    manifest: Path
    state: str
    origin: str
    component: Component


def deferred(refreshed: Refreshed, name: str, held: ExitStack, listener: Listener) -> Refreshed:
    """The refreshed states, in which dbt defers to the projects in the artifact with this name.

    held: the new states' files exist until it is closed. Raises `ConfigurationError` if no dbt
    project has a `state_path` in its state, `VerificationFailed` if the artifact is not valid or
    has none of these projects.
    """
    wanted = _wanted(refreshed)
    scratch = held.enter_context(scratch_folder())
    with open_artifact(name) as artifact:
        verify(artifact).raise_for_problems()
        origin, extracted = origin_of(artifact), extract(artifact, scratch / "production")
    places = [bundle.place for bundle in refreshed.bundles]
    found = {item.path: item for item in extracted}
    there = {
        (place, state.key): _project_of(origin, component, found[path].target / state.path, state)
        for (place, key), component in wanted.items()
        for path in paths_at(found, place, places)
        for state in found[path].manifest.states
        if state.key == key
    }
    for place, key in sorted(wanted):
        if (place, key) in there:
            state = there[place, key].state[:12]
            listener.note(f"{key} defers to {name} (state {state}).")
        else:
            listener.warning(
                f"{name} has no {key} in {place}, so that dbt project defers to nothing."
            )
    if not there:
        raise VerificationFailed(
            f"{name} contains none of the dbt projects that could defer to it.",
            hint="Name an artifact with the state of "
            f"{', '.join(f'{key} in {place}' for place, key in sorted(wanted))}.",
        )
    pairs = zip(refreshed.bundles, refreshed.record, strict=True)
    made = [
        _with_manifests(bundle, record, there, scratch / str(number))
        if any((bundle.place, state.key) in there for state in bundle.manifest.states)
        else (bundle, record)
        for number, (bundle, record) in enumerate(pairs)
    ]
    return msgspec.structs.replace(
        refreshed,
        bundles=tuple(bundle for bundle, _ in made),
        record=tuple(record for _, record in made),
    )


def _wanted(refreshed: Refreshed) -> dict[_StateName, Component]:
    """The embedded dbt projects that have a `state_path`."""
    embedded = {
        (bundle.place, state.key)
        for bundle in refreshed.bundles
        for state in bundle.manifest.states
    }
    found = {
        (source.place, component.key): component
        for source in refreshed.found
        for component in source.components
        if component.defers_in and (source.place, component.key) in embedded
    }
    if not found:
        raise ConfigurationError(
            "No embedded dbt project has a state_path, where dbt would look for what it defers to.",
            hint="Set it in defs.yaml: project: {project_dir: …, state_path: target/production}",
        )
    for component in found.values():
        if problem := name_problem(component.defers_in):
            raise ConfigurationError.of_key(
                component.key,
                f"its state_path {problem}, so it is outside of its state.",
                hint="Make state_path relative to the dbt project, such as target/production.",
            )
    return found


def _project_of(origin: str, component: Component, directory: Path, state: State) -> _Production:
    targets = target_directories(scan(directory).files)
    if len(targets) != 1:
        raise VerificationFailed(
            f"{origin}: the state of {state.key} has {len(targets) or 'no'} parsed dbt projects.",
            hint="Name an artifact in which its target directory has a manifest.json.",
            key=state.key,
        )
    manifest = directory / targets[0] / PARSED
    return _Production(manifest, state.digest.dir_hash, origin, component)


def _with_manifests(
    bundle: Bundle,
    record: DirectoryRefresh,
    there: Mapping[_StateName, _Production],
    folder: Path,
) -> tuple[Bundle, DirectoryRefresh]:
    keys = tuple(
        msgspec.structs.replace(key, deferred_from=there[bundle.place, key.key].origin)
        if (bundle.place, key.key) in there
        else key
        for key in record.keys
    )
    refresh = msgspec.structs.replace(record, keys=keys)
    states = []
    with StateDir(folder, bundle.place).staging() as staging:
        for state in bundle.manifest.states:
            directory = staging.key_directory(state.key)
            _copy(state, (bundle.held or bundle.root) / state.path, directory)
            production = there.get((bundle.place, state.key))
            states.append(_deferring(state, directory, production) if production else state)
        non_local = bundle.manifest.predicate.contents.non_local
        publication = staging.publish(states, non_local, refresh)
    made = msgspec.structs.replace(publication.bundle, root=bundle.root, held=folder)
    return made, publication.refresh


def _copy(state: State, source: Path, target: Path) -> None:
    with io_errors(target):
        for file in state.files:
            (target / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file.path, target / file.path)


def _deferring(state: State, directory: Path, production: _Production) -> State:
    """The state with production's manifest in it."""
    component = production.component
    path = f"{component.defers_in}/{PARSED}"
    with io_errors(directory):
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(production.manifest, directory / path)
    tree = scan(directory)
    made = state_of(
        state.key,
        state.path,
        tree,
        semantic=semantic_digest(directory, tree, kind_of(component), KeyOptions()),
        writable=state.writable,
    )
    deferral = Deferral(path, production.state)
    return msgspec.structs.replace(made, version=state.version, defer=deferral)
