"""Embeds the states of an artifact instead of refreshing: ``--state-from``.

Today's code with the state of another artifact, offline and without credentials: to roll back, to
replay, to build a pull request from a fork. The projects' own state directories are neither read
nor changed; the states keep the times at which they were really fetched.

1. The artifact is verified and its states are extracted to a temporary folder.
2. Each of its state directories is matched with one of the projects', by its path's end; those of
   other projects are left out.
3. Where the components can be found, a key that they need and the artifact lacks is an error.
4. Each set of states gets a manifest for today's components, and is embedded from that folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bundler.artifacts.extract import Extracted, extract
from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import (
    BundlerError,
    ConfigurationError,
    UsageError,
    VerificationFailed,
)
from bundler.listener import Listener
from bundler.project.layout import import_roots
from bundler.project.projects import Project
from bundler.refresh.directories import LOCAL, VERSIONED
from bundler.refresh.model import Found
from bundler.refresh.run import Refreshed, discover
from bundler.refresh.scratch import scratch_folder
from bundler.refresh.sources import sources_of
from bundler.state.artifact import Artifact
from bundler.state.bundle import STATE_DIRECTORY, Bundle, paths_at
from bundler.state.manifest import Contents, DirectoryRefresh, KeyRefresh, Manifest, RunRecord
from bundler.state.run_record import version_in
from bundler.state.statedir import StateDir, sanitize_key
from bundler.system.wording import counted


class _Target(msgspec.Struct, frozen=True):
    """A project's state directory.

    keys, versioned: those of its components that are local, or in versioned storage; None if
    unknown.
    """

    path: Path
    place: str
    keys: frozenset[str] | None
    versioned: frozenset[str] | None = None


def replay(
    projects: Sequence[Project],
    name: str,
    listener: Listener,
    held: ExitStack,
    *,
    plan: str | None = None,
) -> Refreshed:
    """The artifact's states as bundles of the projects; asks no external system.

    held: the bundles' files exist until it is closed. plan: the file that contains the artifact;
    the record of the states then stays unchanged, without naming the artifact. Raises
    `VerificationFailed` if the artifact is not valid or lacks a key that the components need,
    `UsageError` if its state directories are not the projects'.
    """
    found, targets = _targets(projects, listener)
    scratch = held.enter_context(scratch_folder())
    with open_artifact(name) as artifact:
        verify(artifact).raise_for_problems()
        record = artifact.run_record() or RunRecord()
        origin = None if plan else origin_of(artifact)
        extracted = extract(artifact, scratch / "states")
    name = plan or name
    tried = [(_match(item, extracted, targets), item) for item in extracted]
    matched = [(target, item) for target, item in tried if target is not None]
    others = [item.path for target, item in tried if target is None]
    _refuse_unmatched(targets, [target for target, _ in matched], others, name)
    if others:
        listener.note(f"Not for the selected projects, and left out: {', '.join(others)}.")
    for target, item in matched:
        _refuse_missing(target, item.manifest, name)
        if unused := _unused(target, item.manifest):
            listener.note(
                f"No component has these keys any more; {name} contains their states, so they are "
                f"embedded: {', '.join(unused)}."
            )
    bundled = [_bundle(target, item, record, origin) for target, item in matched]
    for bundle, _ in bundled:
        digest = bundle.manifest.content_digest[:12]
        listener.note(
            f"{counted(len(bundle.manifest.states), 'state')} (content {digest}) from {name}."
        )
    return Refreshed(
        bundles=tuple(bundle for bundle, _ in bundled),
        record=tuple(refresh for _, refresh in bundled),
        found=found,
    )


def origin_of(artifact: Artifact) -> str:
    """The record's origin of the states; without a path of this machine."""
    name = artifact.name.rstrip("/").rpartition("/")[2] or artifact.kind
    return f"{artifact.kind}:{name}" + (f"@{artifact.digest}" if artifact.digest else "")


# --- where the states belong ------------------------------------------------------------------


def _targets(
    projects: Sequence[Project], listener: Listener
) -> tuple[tuple[Found, ...], tuple[_Target, ...]]:
    try:
        found = discover(projects, listener)
    except BundlerError as error:
        listener.warning(f"The keys that the code needs could not be determined: {error}")
        return (), tuple(target for project in projects for target in configured(project))
    by_path: dict[Path, _Target] = {}
    for source in found:
        before = by_path.get(source.directory)
        by_path[source.directory] = _Target(
            source.directory,
            source.place,
            source.keys(LOCAL) | ((before and before.keys) or frozenset()),
            source.keys(VERSIONED) | ((before and before.versioned) or frozenset()),
        )
    return found, tuple(by_path.values())


def configured(project: Project) -> list[_Target]:
    """The state directories of a project as far as files tell, without its interpreter."""
    targets = [
        _Target(Path(source.load["directory"]), source.load["place"], None)
        for source in sources_of(project)
        if "directory" in source.load
    ]
    if project.dagster is not None:
        defs = project.dagster.defs.replace(".", "/")
        roots = [root for root in import_roots(project.root) if (root / defs).is_dir()]
        if not roots:
            raise ConfigurationError(
                f"{project.dagster.defs} of {project.name} is neither in {project.root} nor in "
                f"{project.root / 'src'}.",
                hint="Pass the project's interpreter with --python, so that it can find the "
                "module.",
            )
        path = roots[0] / defs / STATE_DIRECTORY
        targets.append(_Target(path, f"{defs}/{STATE_DIRECTORY}", None))
    return targets


def _match(
    item: Extracted, extracted: Sequence[Extracted], targets: Sequence[_Target]
) -> _Target | None:
    """None for the states of a project that is not selected."""
    paths = [each.path for each in extracted]
    places = [target.place for target in targets]
    found = (target for target in targets if item.path in paths_at(paths, target.place, places))
    return next(found, None)


def _refuse_unmatched(
    targets: Sequence[_Target], matched: Sequence[_Target], others: Sequence[str], name: str
) -> None:
    lacking = [it for it in targets if it not in matched and it.keys != frozenset()]
    if others and (lacking or not matched):
        places = ", ".join(target.place for target in targets)
        raise UsageError(
            f"{', '.join(others)} in {name} is not a state directory of any selected project: "
            f"{places or 'none'}.",
            hint="Select the projects that the artifact was built from with --project.",
        )
    for target in lacking:
        raise VerificationFailed(
            f"{name} contains no state for {target.place}.",
            hint="Pass another artifact with --state-from, or refresh.",
        )
    for target in targets:
        if matched.count(target) > 1:
            raise UsageError(
                f"{name} contains several state directories for {target.place}.",
                hint="Pass an artifact of this project alone with --state-from.",
            )


def _refuse_missing(target: _Target, manifest: Manifest, name: str) -> None:
    there = {state.key for state in manifest.states}
    missing = sorted((target.keys or frozenset()) - there)
    if missing:
        raise VerificationFailed(
            f"{name} does not contain the state of {', '.join(missing)}, which the code needs.",
            hint="Check out the code that the artifact was built from, or refresh.",
            key=missing[0],
        )


def _unused(target: _Target, manifest: Manifest) -> list[str]:
    if target.keys is None:
        return []
    known = target.keys | (target.versioned or frozenset())
    return sorted(state.key for state in manifest.states if state.key not in known)


# --- what is embedded -------------------------------------------------------------------------


def _bundle(
    target: _Target, item: Extracted, record: RunRecord, origin: str | None
) -> tuple[Bundle, DirectoryRefresh]:
    """The extracted states with a manifest for today's components, where they were extracted."""
    states = item.manifest.states
    for state in states:
        if state.path != sanitize_key(state.key):
            raise VerificationFailed(f"{state.path!r} is not the directory of {state.key!r}.")
    keys = tuple(_refresh_of(record, item.path, state.key, origin) for state in states)
    contents = _as_needed(item.manifest.predicate.contents, target, keys)
    removed = tuple(key for it in record.refresh if it.path == item.path for key in it.removed_keys)
    refresh = DirectoryRefresh(target.place, keys, removed_keys=removed)
    with StateDir(item.target, target.place).staging() as staging:
        publication = staging.publish(contents.states, contents.non_local, refresh)
    bundle = msgspec.structs.replace(publication.bundle, root=target.path, held=item.target)
    return bundle, publication.refresh


def _as_needed(contents: Contents, target: _Target, keys: Sequence[KeyRefresh]) -> Contents:
    """The reused state, as today's components need it: a state of a key in versioned storage
    names its version, so that the program finds it without the storage."""
    if target.versioned is None:
        return contents
    versions = {key.key: version_in(key.origin) for key in keys}
    states = tuple(
        msgspec.structs.replace(
            state,
            version=(state.version or versions.get(state.key))
            if state.key in target.versioned
            else None,
        )
        for state in contents.states
    )
    return msgspec.structs.replace(contents, states=states)


def _refresh_of(record: RunRecord, path: str, key: str, origin: str | None) -> KeyRefresh:
    """How the state was made, according to its artifact, and that it came from there.

    A version of a store is a better origin than the store: a prune keeps what is named by it.
    """
    known = record.key(path, key)
    if known is not None and (origin is None or version_in(known.origin)):
        return known
    return msgspec.structs.replace(known or KeyRefresh(key), origin=origin or "unknown")
