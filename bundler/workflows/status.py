"""What is known of every key of a project, an artifact or a fleet.

States on disk are compared with their manifest, so that an altered state never looks good.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.artifacts.open import is_in_registry, open_artifact, shared_connections
from bundler.artifacts.verify import verify, without_state
from bundler.errors import BundlerError, Findings, VerificationFailed
from bundler.listener import Listener
from bundler.state.artifact import Artifact, read_settled
from bundler.state.directory import PublishedDirectories
from bundler.state.manifest import KeyRefresh, ManagementType, Manifest, RunRecord, parse
from bundler.system.parallel import while_waiting
from bundler.system.wording import counted
from bundler.workflows.policy import Policy, entries_of

if TYPE_CHECKING:
    from bundler.artifacts.diff import Difference
    from bundler.artifacts.verify import Verdict
    from bundler.refresh.model import Component, Found
    from bundler.workflows.policy import Breach

PROJECT = "project"
TYPES: Mapping[ManagementType, str] = {
    "LOCAL_FILESYSTEM": "local",
    "VERSIONED_STATE_STORAGE": "versioned",
    "LEGACY_CODE_SERVER_SNAPSHOTS": "legacy",
}
_MISMATCH = "does not match its manifest"
# Only the manifests of these are read: their bytes are elsewhere.
_ELSEWHERE = ("docker", "registry", "store")


class KeyStatus(msgspec.Struct, frozen=True):
    """One key.

    directory: the state directory's path, as in the artifact or the project. size: in bytes;
    digest: dirHash; both None if there is no state here. refresh: how the state was made, if known.
    version: of a state in versioned storage, if pinned or embedded. entries: in the state's JSON,
    or its files; None if they were not counted. users: the components with this key, as a project's
    discovery names them. problem: what is wrong with the key or its state.
    """

    directory: str
    key: str
    management_type: ManagementType
    size: int | None = None
    digest: str | None = None
    version: str | None = None
    entries: int | None = None
    refresh: KeyRefresh | None = None
    users: tuple[str, ...] = ()
    problem: str = ""

    @property
    def confirmed(self) -> str | None:
        """When the external system was last asked for it, if that is known."""
        return (self.refresh.confirmed or self.refresh.fetched) if self.refresh else None

    @property
    def is_stale(self) -> bool:
        return self.refresh is not None and self.refresh.stale

    @property
    def is_missing(self) -> bool:
        """Whether it is a local key without a state."""
        return self.size is None and self.management_type == "LOCAL_FILESYSTEM"


class Moment(msgspec.Struct, frozen=True):
    """A state that a key had. at: RFC 3339, when it was fetched. where: what contains it."""

    key: str
    at: str
    size: int
    digest: str
    where: str
    entries: int | None = None


class Holder(msgspec.Struct, frozen=True):
    """A project or an artifact, which contains keys.

    name: as the user named it. kind: ``project``, or the artifact's. digest: the artifact's, if it
    is cheap. contents: the content digest of each state directory, by its path. record: how an
    artifact was made. verified: whether every byte was compared with the manifest. breaches: the
    requirements that it does not meet. signer: None if there is none, or nobody asked. failure: why
    it could not be read, and then there are no keys; or its problem. since: what changed since the
    baseline, if there is one. earlier: the versions that a store keeps.
    """

    name: str
    kind: str
    keys: tuple[KeyStatus, ...] = ()
    digest: str | None = None
    contents: Mapping[str, str] | None = None
    record: RunRecord | None = None
    verified: bool = False
    breaches: tuple[Breach, ...] = ()
    signer: str | None = None
    failure: BundlerError | None = None
    since: Difference | None = None
    earlier: tuple[Moment, ...] = ()

    @property
    def size(self) -> int:
        """All states together, in bytes."""
        return sum(key.size or 0 for key in self.keys)

    @property
    def confirmed(self) -> str | None:
        """When the oldest state was confirmed, if any says so."""
        return min(filter(None, (key.confirmed for key in self.keys)), default=None)


class Demands(msgspec.Struct, frozen=True):
    """Additional questions about artifacts.

    policy: None for no requirements. signed_by: a file of allowed signers. history: count each
    state's entries, and list the versions that a store keeps.
    """

    policy: Policy | None = None
    signed_by: Path | None = None
    history: bool = False

    @property
    def of_bytes(self) -> bool:
        """Whether they can only be answered for an artifact that was read completely."""
        return self.policy is not None or self.signed_by is not None


_NO_DEMANDS = Demands()


def of_names(
    names: Sequence[str], baseline: str | None = None, demands: Demands = _NO_DEMANDS
) -> Iterator[Holder]:
    """The artifacts with these names, in order; one that cannot be read says why.

    Those in registries are read concurrently; with a baseline, which all of them are compared with,
    one after the other. Raises if the baseline cannot be read: none of
    them could be compared then.
    """
    with ExitStack() as stack:
        connections = stack.enter_context(shared_connections(names))
        before = stack.enter_context(open_artifact(baseline)) if baseline else None

        def look(name: str) -> Holder:
            try:
                with open_artifact(name, connections) as artifact:
                    return of_artifact(artifact, before, demands)
            except BundlerError as error:
                return Holder(name, "unknown", failure=error)

        yield from while_waiting(look, names, lambda name: before is None and is_in_registry(name))


def of_artifact(
    artifact: Artifact, baseline: Artifact | None = None, demands: Demands = _NO_DEMANDS
) -> Holder:
    """Every key that the artifact's manifests name.

    Raises `VerificationFailed` if there is no manifest, or one is malformed.
    """
    return read_settled(artifact, lambda: _of_artifact(artifact, baseline, demands))


def _of_artifact(artifact: Artifact, baseline: Artifact | None, demands: Demands) -> Holder:
    keys: list[KeyStatus] = []
    contents: dict[str, str] = {}
    record = artifact.run_record()
    for directory in artifact.state_directories():
        raw = directory.read_manifest()
        if raw is None:
            raise VerificationFailed(
                f"{artifact.name}: {directory.path} has no manifest.",
                hint="Its state was not embedded by state-bundler: refresh, then build again.",
            )
        manifest = parse(raw, f"{artifact.name}: the manifest")
        contents[directory.path] = manifest.content_digest
        keys += _of_manifest(directory.path, manifest, record)
    if not contents:
        raise without_state(artifact.name)
    known = Holder(artifact.name, artifact.kind, tuple(keys), artifact.digest, contents, record)
    if demands.history:
        known = msgspec.structs.replace(known, earlier=_earlier(artifact))
    if demands.of_bytes or artifact.kind not in _ELSEWHERE:
        known = _judged(known, artifact, verify(artifact), demands)
    if baseline is not None and (known.verified or artifact.kind in _ELSEWHERE):
        from bundler.artifacts.diff import diff

        known = msgspec.structs.replace(known, since=diff(baseline, artifact))
    return known


def _judged(holder: Holder, artifact: Artifact, verdict: Verdict, demands: Demands) -> Holder:
    """The holder with the results of verification and of the requirements."""
    keys, mismatch = _compared(artifact.name, holder.keys, verdict)
    if mismatch is not None:
        return msgspec.structs.replace(holder, keys=keys, failure=mismatch)
    from bundler.workflows.signature import judged

    policy = demands.policy or Policy()
    breaches, signer = judged(
        artifact, verdict, policy, allowed=demands.signed_by, signature=None, name=holder.name
    )
    if demands.history and artifact.kind not in _ELSEWHERE:
        entries = entries_of(artifact, verdict)
        keys = tuple(
            msgspec.structs.replace(key, entries=entries.get((key.directory, key.key)))
            for key in keys
        )
    failure = None
    if breaches:
        count = counted(len(breaches), "finding")
        failure = Findings(f"{artifact.name} is intact, but violates the policy: {count}.")
    return msgspec.structs.replace(
        holder, keys=keys, verified=True, breaches=breaches, signer=signer, failure=failure
    )


def _earlier(artifact: Artifact) -> tuple[Moment, ...]:
    from bundler.artifacts.stored import StoredStates

    if not isinstance(artifact, StoredStates):
        return ()
    return tuple(
        Moment(version.key, (version.refresh and version.refresh.fetched) or version.made,
               version.state.size, version.state.digest.dir_hash, version.version)
        for version in artifact.kept()
    )  # fmt: skip


def _compared(
    name: str, keys: tuple[KeyStatus, ...], verdict: Verdict
) -> tuple[tuple[KeyStatus, ...], VerificationFailed | None]:
    """The keys, with what `verify` finds wrong with their states; and that as a failure."""
    problems = verdict.all_problems
    if not problems:
        return keys, None
    altered = {
        (directory.path, state.key)
        for directory in verdict.directories
        for state in (directory.manifest.states if directory.manifest else ())
        if any(said.startswith(f"{directory.path}/{state.path}/") for said in directory.problems)
    }
    marked = tuple(
        msgspec.structs.replace(key, problem=f"{key.key} {_MISMATCH}.")
        if (key.directory, key.key) in altered
        else key
        for key in keys
    )
    more = f" {len(problems) - 1} more." if len(problems) > 1 else ""
    failure = VerificationFailed(
        f"{name} {_MISMATCH}: {problems[0]}{more}",
        hint=f"For details, run: state-bundler verify {shlex.quote(name)}",
    )
    return marked, failure


def of_projects(
    directories: Sequence[Path],
    listener: Listener,
    *,
    python: Path | None = None,
    baseline: str | None = None,
    is_cached: bool = True,
) -> Callable[[], list[Holder]]:
    """Finds the components once, and returns what looks at their published states.

    directories: empty for all projects with state in the workspace. baseline: None for the one that
    each project configures.
    """
    from bundler.project.projects import find
    from bundler.project.stateful import with_state
    from bundler.refresh.known_components import discover

    projects = find(directories, everything=True, python=python)
    if not directories and len(projects) > 1:
        projects = with_state(projects)
    found = [(project, discover([project], listener, is_cached=is_cached)) for project in projects]
    return lambda: [
        of_sources(str(project.root), sources, baseline or project.config.refresh.baseline)
        for project, sources in found
    ]


def of_sources(name: str, sources: Sequence[Found], baseline: str | None = None) -> Holder:
    """Every key of a project's sources, with what was last published for it.

    If a state directory cannot be read, its keys say why.
    """
    try:
        return _of_sources(name, sources, baseline)
    except BundlerError as error:
        return Holder(name, PROJECT, failure=error)


def _of_sources(name: str, sources: Sequence[Found], baseline: str | None) -> Holder:
    keys: dict[tuple[str, str], KeyStatus] = {}
    contents: dict[str, str] = {}
    failure: BundlerError | None = None
    for source in sources:
        published = _published(name, source)
        contents |= published.contents or {}
        failure = failure or published.failure
        known = {status.key: status for status in published.keys}
        users_by_key: dict[str, list[Component]] = defaultdict(list)
        for component in source.components:
            users_by_key[component.key].append(component)
        for key, users in users_by_key.items():
            missing = KeyStatus(source.place, key, users[0].management_type)
            status = keys.get((source.place, key)) or known.get(key, missing)
            told = (user.location or user.kind for user in users)  # where it is declared
            refused = next((user.refused.what for user in users if user.refused), "")
            problem = refused or status.problem
            keys[source.place, key] = msgspec.structs.replace(
                status, users=tuple(dict.fromkeys((*status.users, *told))), problem=problem
            )
    return Holder(
        name,
        PROJECT,
        tuple(keys[place] for place in sorted(keys)),
        contents=contents,
        verified=bool(contents) and failure is None,
        failure=failure,
        since=_project_since(name, baseline, sources) if contents and not failure else None,
    )


def _published(name: str, source: Found) -> Holder:
    """The keys that were published for a source, compared with their manifest."""
    from bundler.state.statedir import StateDir

    nothing = Holder(name, PROJECT, contents={})
    with PublishedDirectories(name, {source.place: source.directory}) as artifact:
        if not artifact.state_directories():
            return nothing

        def read() -> Holder:
            published = StateDir(source.directory, source.place).read()
            if published is None:
                return nothing
            keys = tuple(_of_manifest(source.place, published.manifest, published.record))
            keys, mismatch = _compared(name, keys, verify(artifact))
            contents = {source.place: published.manifest.content_digest}
            return Holder(name, PROJECT, keys, contents=contents, failure=mismatch)

        return read_settled(artifact, read)


def _project_since(name: str, baseline: str | None, sources: Sequence[Found]) -> Difference | None:
    """What is published in the project's state directories, compared with the baseline."""
    from bundler.artifacts.baseline import since

    if baseline is None:
        return None
    places = {source.place: source.directory for source in sources}
    with open_artifact(baseline) as before, PublishedDirectories(name, places) as now:
        return since(before, now, list(places))


def _of_manifest(path: str, manifest: Manifest, record: RunRecord | None) -> Iterator[KeyStatus]:
    for state in manifest.states:
        yield KeyStatus(
            directory=path,
            key=state.key,
            management_type="VERSIONED_STATE_STORAGE" if state.version else "LOCAL_FILESYSTEM",
            size=state.size,
            digest=state.digest.dir_hash,
            version=state.version,
            refresh=record.key(path, state.key) if record else None,
        )
    for key in manifest.predicate.contents.non_local:
        yield KeyStatus(path, key.key, key.management_type, version=key.version)
