"""What a build does before and after the tool that builds: guard, refresh, and read back.

    guard  ->  refresh and publish  ->  [docker, pex, …]  ->  embed  ->  read back  ->  name

Everything up to the refresh is `prepare`; reading back is `read_back`. Between them is what
knows the artifact.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bundler import git
from bundler.artifacts.baseline import holds_states
from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.verify import Verdict, read_back
from bundler.errors import Findings, UsageError, raise_all
from bundler.guard.moments import check as ask_git
from bundler.guard.verdict import GuardFinding, grouped
from bundler.listener import SILENT, Listener
from bundler.project.layout import repository_of
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project
from bundler.project.selection import Selection
from bundler.project.source_paths import refuse_shared
from bundler.refresh.run import refresh
from bundler.refresh.surroundings import surroundings_of
from bundler.state import run_record
from bundler.state.artifact import Artifact
from bundler.state.bundle import Bundle
from bundler.state.definitions import Definitions
from bundler.state.manifest import RunRecord
from bundler.workflows.defer import deferred
from bundler.workflows.state_from import replay
from bundler.workflows.stored_versions import with_stored

if TYPE_CHECKING:
    from bundler.refresh.run import Refreshed
    from bundler.workflows.loadcheck import LoadCheck


_DOES_NOT_RUN = "an image outside an engine does not run by itself"


class Prepared(msgspec.Struct, frozen=True, dict=True):
    """States that were refreshed and are ready to be embedded, with their record.

    environment: a name for the record. load_check: what loading the finished artifact must show;
    None if it is not to be loaded. not_loaded: why not, for the last line. expected: what each
    project defines according to a plan, by its name.
    """

    projects: tuple[Project, ...]
    refreshed: Refreshed
    guarded: bool = True
    environment: str | None = None
    load_check: LoadCheck | None = None
    not_loaded: str = "--load-check loads it"
    expected: Mapping[str, Definitions] = {}

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        return self.refreshed.bundles

    @cached_property
    def record(self) -> RunRecord:
        """The record of a build. Asks git for the code's identity; raises `ToolFailed` as it
        does."""
        return self._record(run_record.code_of(self.projects[0].root, required=self.guarded))

    @property
    def record_of_refresh(self) -> RunRecord:
        """The same without the code, so that git is not asked."""
        return self._record(None)

    def request(
        self, listener: Listener, record: RunRecord | None = None, **options: Any
    ) -> EmbedRequest:
        """What to embed in an artifact. record: another than that of a build."""
        return EmbedRequest(self.bundles, record or self.record, listener=listener, **options)

    def _record(self, identity: git.CodeIdentity | None) -> RunRecord:
        return run_record.make(
            identity,
            self.refreshed.record,
            guarded=self.guarded,
            environment=self.environment,
        )


class LoadRequest(msgspec.Struct, frozen=True):
    """How the user asks for a load of the finished artifact.

    wanted: None if not at all. modules: what to load, instead of what a code server would. least:
    definitions; None for as many as are there now.
    """

    wanted: bool | None = None
    modules: tuple[str, ...] = ()
    least: int | None = None


class StateRequest(msgspec.Struct, frozen=True):
    """Which states to embed, and what is checked before and afterwards.

    guarded: False skips git, which the record then says. environment: a name for the record.
    state_from: an artifact whose states are embedded; nothing is refreshed or published then.
    plan: a plan file whose states are. defer_from: the artifact whose dbt manifests the embedded
    dbt projects defer to. pins, embeds: see `with_stored`.
    """

    selection: Selection = Selection()
    refresh: RefreshOptions = RefreshOptions()
    guarded: bool = True
    environment: str | None = None
    state_from: str | None = None
    plan: Path | None = None
    defer_from: str | None = None
    pins: bool | None = False
    embeds: bool = False
    load: LoadRequest = LoadRequest()


@contextmanager
def prepare(
    projects: Sequence[Project],
    request: StateRequest,
    listener: Listener = SILENT,
    *,
    replaces: Sequence[str] = (),
    loads: bool = False,
) -> Iterator[Prepared]:
    """Asks git whether the states are kept out, then refreshes and publishes them.

    Until the block ends, the bundles stay as they are, see `bundler.state.hold`. replaces: the
    artifacts that get the new states, which a plan must have compared. loads: whether the artifact
    is loaded if the request does not say; with a plan it is.
    Raises `Findings` if a state is, or could come, in the repository, and as
    `bundler.refresh.run.refresh` does.
    """
    options = request.refresh
    if request.state_from is None and request.plan is None:
        options = _with_baseline(options, projects, replaces) if replaces else options
        options = with_stored(options, projects, pins=request.pins, embeds=request.embeds)
    if request.guarded:
        listener.phase("Checking that git ignores the state")
        check_guard(projects, listener)
    else:
        listener.warning("The git check was skipped; the artifact's run record will say so.")
    expected: Mapping[str, Definitions] = {}
    with ExitStack() as held:
        if request.plan is not None:
            from bundler.workflows import plan_file

            listener.phase(f"Carrying out {request.plan}")
            refreshed, expected = plan_file.carry_out(
                request.plan, projects, options, listener, held, targets=replaces
            )
        elif request.state_from is None:
            refreshed = refresh(projects, options, listener, held=held)
        else:
            listener.phase(f"Extracting the state of {request.state_from}")
            refreshed = replay(projects, request.state_from, listener, held)
        if request.defer_from is not None:
            listener.phase(f"Extracting the dbt manifest to defer to from {request.defer_from}")
            refreshed = deferred(refreshed, request.defer_from, held, listener)
        if not refreshed.bundles:
            listener.note("No component has state to embed: the artifact is built without state.")
        named = request.environment or projects[0].config.environment
        prepared = Prepared(tuple(projects), refreshed, request.guarded, named, expected=expected)
        yield with_load(prepared, request.load, by_default=loads or bool(expected))


def _with_baseline(
    options: RefreshOptions, projects: Sequence[Project], replaces: Sequence[str]
) -> RefreshOptions:
    """The options with the artifact as baseline that is to be replaced.

    Only if removals are limited and no baseline is configured: it has to be read for that.
    Raises `UsageError` for several artifacts then.
    """
    configured = [options, *(project.config.refresh for project in projects)]
    limited = any(
        keys.max_removed is not None
        for each in configured
        for keys in (each.defaults, each.over_all, *each.per_key.values())
    )
    if not limited or any(each.baseline is not None for each in configured):
        return options
    if len(replaces) > 1:
        raise UsageError(
            "max-removed compares with the artifact that is updated, but there are "
            f"{len(replaces)}.",
            hint=f"Name the one to compare with: --baseline {shlex.quote(replaces[0])}",
        )
    (replaced,) = replaces
    has_states = holds_states(replaced)
    return msgspec.structs.replace(options, baseline=replaced) if has_states else options


def with_load(prepared: Prepared, request: LoadRequest, *, by_default: bool) -> Prepared:
    """The same with the load check that was asked for.

    by_default: also one that was not, if the module to load is known.
    """
    is_required = bool(request.wanted)
    if request.wanted is False or not (is_required or by_default):
        said = "--no-load-check was given" if by_default else prepared.not_loaded
        return msgspec.structs.replace(prepared, not_loaded=said)
    try:
        check = _load_check(prepared, request)
    except UsageError:
        if is_required:
            raise
        said = "the module to load is unknown; name it with --load-module"
        return msgspec.structs.replace(prepared, not_loaded=said)
    return msgspec.structs.replace(prepared, load_check=check)


def _load_check(prepared: Prepared, request: LoadRequest) -> LoadCheck:
    from bundler.workflows import loadcheck

    projects, is_required = prepared.projects, bool(request.wanted)
    has_dagster = any(project.dagster is not None for project in projects)
    environ: dict[str, str] = {}
    for project in projects:
        environ.update(surroundings_of(project, named=(), excluded=()).environment)
    least = request.least
    if least is None:  # a module of components makes no definitions, and a location needs none
        least = int(is_required or (has_dagster and bool(prepared.bundles)))
    return loadcheck.LoadCheck(
        loadcheck.targets_of(projects, request.modules),
        least,
        loadcheck.environment_of(prepared.refreshed.record, environ),
        compares=is_required and request.least is None,
        is_required=is_required,
        may_be_absent=not (is_required or has_dagster),
        declared={} if request.modules else _declared(prepared),
    )


def _declared(prepared: Prepared) -> dict[str, str]:
    """The file of each embedded key that a file of components declares."""
    embedded = {state.key for bundle in prepared.bundles for state in bundle.manifest.states}
    return {
        component.key: component.location
        for found in prepared.refreshed.found
        for component in found.components
        if component.key in embedded and component.location.endswith((".yaml", ".yml"))
    }


def check_guard(projects: Sequence[Project], listener: Listener) -> None:
    """Raises `Findings` with everything that git says against building these projects.

    Each repository is asked once: its answer is about all projects in it. Raises
    `ConfigurationError` for a state directory that others use: what git says of that would be
    wrong advice.
    """
    for project in projects:
        refuse_shared(project.config, project.dagster)
    repositories: dict[Path | None, list[Project]] = {}
    for project in projects:
        repositories.setdefault(repository_of(project.root), []).append(project)
    failed: list[GuardFinding] = []
    for repository, inside in repositories.items():
        root = repository or inside[0].root
        verdict = ask_git(
            root,
            "build",
            directories=[
                each.root / source.path for each in inside for source in each.config.sources
            ],
            allow=[
                os.path.relpath(each.root / pattern, root)
                for each in inside
                for pattern in each.config.guard_allow
            ],
        )
        for finding in grouped(verdict.warnings):
            listener.warning(finding.what)
        failed += verdict.failures
    raise_all([Findings(it.what, hint=it.fix, why=it.why) for it in failed])


def verify_and_load(
    artifact: Artifact, prepared: Prepared, listener: Listener, *, before: str | None = None
) -> Verdict:
    """Reads the artifact back, and loads its code location if that was requested.

    before: the artifact that has the name now; its definitions are the required minimum. Raises as
    `read_back` and `bundler.workflows.loadcheck.check` do.
    """
    verdict = read_back(artifact, prepared.bundles)
    loaded = _loaded(artifact, prepared, listener, before)
    return msgspec.structs.replace(verdict, loaded=loaded)


def _loaded(artifact: Artifact, prepared: Prepared, listener: Listener, before: str | None) -> str:
    """The result of the load, or why it was not loaded."""
    demanded = prepared.load_check
    runs = artifact.kind not in ("oci", "registry")
    if demanded is None or not (runs or demanded.is_required):
        return f"not loaded: {prepared.not_loaded if runs else _DOES_NOT_RUN}"
    from bundler.workflows import loadcheck

    listener.phase("Loading the artifact's code location without network access")
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as root:
        python = prepared.projects[0].interpreter.path
        runner = loadcheck.runners(artifact, python, Path(root), listener)
        if runner is None:
            raise UsageError(
                f"{artifact.name} cannot be loaded here: {_DOES_NOT_RUN}.",
                hint="Omit --load-check; run `@verify.py --load MODULE` in the pod instead.",
            )
        run = runner(artifact.digest if artifact.kind == "docker" else artifact.name)
        is_compared = demanded.compares and before is not None and _exists(artifact, before)
        try:
            loaded = loadcheck.check(
                run,
                demanded,
                before or artifact.name,
                listener,
                baseline=runner(before) if is_compared else None,
            )
        except loadcheck.NotTried as error:
            if demanded.is_required:
                raise
            return f"not loaded: {error.what}"
        if not prepared.expected:
            return loadcheck.described(demanded, loaded)
        loadcheck.compare_with_plan(
            run, demanded, prepared.projects, prepared.expected, before or artifact.name
        )
    return f"{loadcheck.described(demanded, loaded)}, as planned"


def _exists(artifact: Artifact, before: str) -> bool:
    """Whether there is an artifact with that name now."""
    if artifact.kind == "pex":
        return Path(before).exists()
    from bundler.artifacts.image.engine.opening import EngineImage

    return isinstance(artifact, EngineImage) and artifact.engine.has_image(before)
