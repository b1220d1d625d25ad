"""A plan as a file: its states, what they were compared with, and what they should define.

It is a tar with ``plan.json`` and ``states.tar``. Shipping it fails if a baseline has changed: the
plan then describes a change that would not happen.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bundler.artifacts.names import ArtifactName
from bundler.artifacts.open import open_artifact
from bundler.errors import BadData, VerificationFailed, raise_all
from bundler.listener import Listener
from bundler.project.layout import repository_of
from bundler.project.options import RefreshOptions, matches
from bundler.project.projects import Project
from bundler.project.selection import Selection
from bundler.refresh.removals import Removal, allowed_keys, allowed_names, refused
from bundler.refresh.run import Refreshed
from bundler.refresh.sources import sources_of
from bundler.state import run_record
from bundler.state.artifact import Artifact
from bundler.state.definitions import Definitions
from bundler.state.directory import PublishedDirectories
from bundler.state.manifest import DirectoryRefresh
from bundler.state.tree import hash_file
from bundler.system.atomic import io_errors, replaced_file
from bundler.workflows.export import export_states
from bundler.workflows.plan import FORMAT, PUBLISHED, Plan, PlanBaseline, as_it_is, make, place_of
from bundler.workflows.state_from import configured, replay
from bundler.workflows.stored_versions import with_stored

_PLAN, _STATES = "plan.json", "states.tar"
_LOCK_FILES = (
    *("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt"),
    *("pylock.toml", "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"),
)
# A text may be nested too deeply to be read.
_NOT_A_PLAN = (tarfile.TarError, KeyError, ValueError, RecursionError, msgspec.MsgspecError)
_MOST_PLAN_BYTES = 256 * 1024 * 1024


def make_and_save(
    selection: Selection,
    options: RefreshOptions,
    baselines: Sequence[str],
    out: Path | None,
    listener: Listener,
) -> Plan:
    """Plans a refresh, see `bundler.workflows.plan.make`. out: the file to write, if any."""
    projects = selection.find(listener)
    options = with_stored(options, projects)
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        scratch = Path(name)
        plan, refreshed = make(
            projects, options, baselines, scratch, listener, expects=out is not None
        )
        if out is not None:
            _save(plan, refreshed, projects, out, scratch=scratch, listener=listener)
    return plan


def _save(
    plan: Plan,
    refreshed: Refreshed,
    projects: Sequence[Project],
    path: Path,
    *,
    scratch: Path,
    listener: Listener,
) -> None:
    """Writes the plan with its states. Raises `InputOutputError`."""
    listener.phase(f"Writing the plan to {path}")
    states = scratch / _STATES
    export_states(refreshed, projects, ArtifactName("path", str(states)))
    made = msgspec.structs.replace(
        plan,
        states=hash_file(states)[0],
        commit=_commit(projects),
        locks=_locks(projects),
        projects=_names_anywhere(projects),
    )
    raw = msgspec.json.encode(made)
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
    *,
    targets: Sequence[str] = (),
) -> tuple[Refreshed, Mapping[str, Definitions]]:
    """The states of a plan file as bundles of the projects, and what these should define.

    held: the bundles' files exist until it is closed. targets: the artifacts that get the states.
    The definitions are by the project's name.
    Raises `VerificationFailed` for a file that is not a plan, for a plan of other projects or
    without this artifact, and for a baseline that has changed, `BadData` for what needs approval.
    """
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        plan = _read(path, Path(scratch))
        if not set(plan.projects).issubset(names := [project.name for project in projects]):
            raise _of_other_projects(plan.projects, names, path)
        places = set(_places(projects))
        if not plan.contents.keys() <= places:
            raise _of_other_projects(plan.contents, places, path)
        for change in plan.changes:
            _refuse_moved(change.baseline, plan, projects)
        for target in targets:
            _refuse_other(target, plan, path)
        _warn_of_other_code(plan, projects, listener)
        removed = _judged(plan, options.allow_removed)
        raise_all([*_shrunk(plan, options.allow_shrink), *refused(removed)])
        states = str(Path(scratch) / _STATES)
        refreshed = replay(projects, states, listener, held, plan=str(path))
        if (here := {bundle.place for bundle in refreshed.bundles}) != plan.contents.keys():
            raise _of_other_projects(plan.contents, here, path)
    record = tuple(_with_removed(directory, removed) for directory in refreshed.record)
    return msgspec.structs.replace(refreshed, record=record), plan.expected


def _shrunk(plan: Plan, allowed: Sequence[str]) -> list[BadData]:
    return [
        state.refusal()
        for change in plan.changes
        for state in change.shrunk
        if not any(matches(state.key, pattern) for pattern in allowed)
    ]


def _judged(plan: Plan, allowed: Sequence[str]) -> list[Removal]:
    """The plan's removals; approval is given when it is made or when it is shipped."""
    return [
        msgspec.structs.replace(it, allowed=it.allowed or it.is_allowed_by(allowed))
        for change in plan.changes
        for it in change.removals
    ]


def _with_removed(directory: DirectoryRefresh, removed: Sequence[Removal]) -> DirectoryRefresh:
    mine = [it for it in removed if it.place == directory.path]
    keys = tuple(
        msgspec.structs.replace(key, removed=allowed_names(mine, key.key)) for key in directory.keys
    )
    return msgspec.structs.replace(directory, keys=keys, removed_keys=allowed_keys(mine))


def _read(path: Path, scratch: Path) -> Plan:
    malformed = VerificationFailed(
        f"{path} is not a plan.", hint="Make one: state-bundler plan --out plan.bin"
    )
    with io_errors(path), path.open("rb") as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                if not all(archive.getmember(name).isreg() for name in (_PLAN, _STATES)):
                    raise malformed
                raw, states = archive.extractfile(_PLAN), archive.extractfile(_STATES)
                if raw is None or states is None:
                    raise malformed
                text = raw.read(_MOST_PLAN_BYTES)
                _refuse_other_format(path, text)
                plan = msgspec.json.decode(text, type=Plan)
                with (scratch / _STATES).open("wb") as target:
                    shutil.copyfileobj(states, target)
        except _NOT_A_PLAN as error:
            raise malformed from error
    if hash_file(scratch / _STATES)[0] != plan.states:
        raise VerificationFailed(f"{path} was altered: its states are not those of its plan.")
    return plan


class _PlanFormat(msgspec.Struct, frozen=True):
    format: int = 1


def _refuse_other_format(path: Path, text: bytes) -> None:
    found = msgspec.json.decode(text, type=_PlanFormat).format
    if found != FORMAT:
        raise VerificationFailed(
            f"{path} is a plan of format {found}; this version of state-bundler reads {FORMAT}.",
            hint="Make it with the version that carries it out: state-bundler plan --out plan.bin",
        )


def _refuse_moved(was: PlanBaseline, plan: Plan, projects: Sequence[Project]) -> None:
    """A baseline may be unchanged, or have the planned states already."""
    with _opened_now(was.name, projects) as artifact:
        now = as_it_is(was.name, artifact)
    has_planned = sorted(now.contents.values()) == sorted(plan.contents.values())
    if now == was or (has_planned and now.code == was.code):
        return
    what = "its code" if now.contents == was.contents else "its states"
    raise VerificationFailed(
        f"The plan is stale: {was.name} has changed since it was made ({what}).",
        hint="Make a new plan: state-bundler plan --out plan.bin",
    )


def _refuse_other(target: str, plan: Plan, path: Path) -> None:
    """What has been compared has the states of a baseline, or has the new ones already."""
    with open_artifact(target) as artifact:
        now = sorted(as_it_is(target, artifact).contents.values())
    known = [plan.contents, *(change.baseline.contents for change in plan.changes)]
    if not any(now == sorted(contents.values()) for contents in known):
        raise VerificationFailed(
            f"{path} does not show what would change in {target}: it was made for "
            f"{', '.join(change.baseline.name for change in plan.changes)}.",
            hint=f"Make a plan for it: state-bundler plan {shlex.quote(target)} --out plan.bin",
        )


def _places(projects: Sequence[Project]) -> Iterator[str]:
    """Where the projects' states may be."""
    for project in projects:
        if project.dagster is not None:
            yield place_of(project)
        yield from (it.load["place"] for it in sources_of(project) if "place" in it.load)


def _names_anywhere(projects: Sequence[Project]) -> tuple[str, ...]:
    """The names that do not come from the directory into which the repository was cloned."""
    return tuple(
        project.name
        for project in projects
        if project.name != project.root.name or repository_of(project.root) != project.root
    )


def _of_other_projects(
    planned: Collection[str], here: Collection[str], path: Path
) -> VerificationFailed:
    return VerificationFailed(
        f"{path} is a plan for {', '.join(sorted(planned))}, not for {', '.join(sorted(here))}.",
        hint="Select the projects that it was made for with --project.",
    )


def _warn_of_other_code(plan: Plan, projects: Sequence[Project], listener: Listener) -> None:
    """Other code may define something else: a load of the finished artifact decides that."""
    other = []
    if (now := _commit(projects)) != plan.commit:
        of_plan, here = ((name or "unknown")[:12] for name in (plan.commit, now))
        other.append(f"from commit {of_plan}, but this is {here}")
    if _locks(projects) != plan.locks:
        other.append("with other requirements or another lock file")
    if other:
        listener.warning(
            f"The plan was made {', '.join(other)}. Only a load of the finished artifact shows "
            "whether it still defines what the plan describes."
        )


def _commit(projects: Sequence[Project]) -> str | None:
    identity = run_record.code_of(projects[0].root, required=False)
    return identity.commit if identity is not None else None


def _locks(projects: Sequence[Project]) -> str:
    digest = hashlib.sha256()
    for project in projects:
        roots = (project.root, project.workspace or project.root)
        for path in (root / name for root in roots for name in _LOCK_FILES):
            if path.is_file():
                digest.update(f"{path.name} {hash_file(path)[0]}\n".encode())
    return digest.hexdigest()


def _opened_now(name: str, projects: Sequence[Project]) -> Artifact:
    if name != PUBLISHED:
        return open_artifact(name)
    targets = [target for project in projects for target in configured(project)]
    return PublishedDirectories(PUBLISHED, {target.place: target.path for target in targets})
