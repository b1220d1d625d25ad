"""Options shared by several commands. A command receives each group of them as one value."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import reduce, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from bundler import listener
from bundler.cli import completion
from bundler.cli.console import Console
from bundler.cli.progress import ConsoleListener

if TYPE_CHECKING:
    from bundler.listener import Listener
    from bundler.project.options import Inside, RefreshMode, RefreshOptions
    from bundler.project.projects import Project
    from bundler.state.manifest import ManagementType
    from bundler.workflows.pipeline import Prepared

# The values of `RefreshMode` and `ManagementType`, copied to keep their import out of --help.
REFRESH_MODES = ("always", "missing", "never")
MANAGEMENT_TYPES = (
    "LOCAL_FILESYSTEM",
    "VERSIONED_STATE_STORAGE",
    "LEGACY_CODE_SERVER_SNAPSHOTS",
)

_Command = TypeVar("_Command", bound=Callable[..., Any])
_DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False)


def _together(*decorators: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Applies click options so that --help lists them in this order."""
    return lambda command: reduce(lambda found, add: add(found), reversed(decorators), command)


def taken_as(
    parameter: str, group: Any, *options: Callable[[Any], Any]
) -> Callable[[_Command], _Command]:
    """Adds options to a command, which receives them as one value of the named tuple `group`."""

    def decorate(command: Any) -> Any:
        @wraps(command)
        def call(*args: Any, **given: Any) -> Any:
            values = {name: given.pop(name) for name in group._fields}
            return command(*args, **given, **{parameter: group(**values)})

        return _together(*options)(call)

    return decorate


class ProjectArguments(NamedTuple):
    """The selected projects and their interpreter. everything: None if there is no ``--all``."""

    directories: tuple[Path, ...]
    everything: bool | None
    python: Path | None

    def find(self, listener: Listener, start: Path | None = None) -> tuple[Project, ...]:
        """Finds the projects and reports the interpreter of each."""
        from bundler.project.projects import find

        projects = find(
            self.directories, start=start, everything=self.everything, python=self.python
        )
        if self.everything and len(projects) > 1:
            projects = _with_state(projects, listener)
        for project in projects:
            interpreter = project.interpreter
            listener.note(f"{project.name}: {interpreter.path} (by {interpreter.found_by})")
            if project.config.given:
                listener.note(f"{project.name}: settings: {', '.join(project.config.given)}")
        return projects


def _with_state(projects: tuple[Project, ...], listener: Listener) -> tuple[Project, ...]:
    """Without the projects that have none: they need no environment here."""
    from bundler.project.stateful import with_state

    found = with_state(projects)
    others = [project.name for project in projects if project not in found]
    if others:
        listener.note(f"no state-backed components: {', '.join(others)}")
    return found


project_options = taken_as(
    "projects",
    ProjectArguments,
    click.option(
        "--project",
        "directories",
        type=_DIRECTORY,
        multiple=True,
        help="A project's directory (repeatable). Default: the current directory.",
    ),
    click.option("--all", "everything", is_flag=True, help="All projects of the workspace."),
    click.option(
        "--python",
        type=click.Path(path_type=Path),
        envvar="STATE_BUNDLER_PYTHON",
        help="The project's interpreter. Default: the one dg and uv would use.",
    ),
)


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """A number and a unit, as in the configuration: ``30s``, ``5m``, ``24h``."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from bundler.errors import ConfigurationError
        from bundler.project.config import seconds

        if isinstance(value, float):
            return value
        try:
            return seconds(value)
        except ConfigurationError as error:
            self.fail(f"{error.what} {error.hint}", param, ctx)


class RefreshArguments(NamedTuple):
    """Refresh options; None and empty values defer to the configuration."""

    mode: RefreshMode | None
    keys: tuple[str, ...]
    management_types: tuple[ManagementType, ...]
    timeout: float | None
    total_timeout: float | None
    attempts: int | None
    jobs: int | None
    allow_empty: tuple[str, ...]
    allow_shrink: tuple[str, ...]
    allow_removed: tuple[str, ...]
    baseline: str | None
    allow_stale: float | None
    allow_http: tuple[str, ...]
    image: str | None
    in_network: str | None
    in_python: str | None

    def options(self) -> RefreshOptions:
        from bundler.project.options import KeyOptions, RefreshOptions
        from bundler.workflows.build_all import is_one_of_all

        return RefreshOptions(
            mode=self.mode,
            keys=self.keys,
            management_types=self.management_types,
            total_timeout=self.total_timeout,
            jobs=self.jobs,
            allow_empty=self.allow_empty,
            allow_shrink=self.allow_shrink,
            allow_removed=self.allow_removed,
            baseline=self.baseline,
            allow_stale=self.allow_stale,
            inside=self._inside(),
            is_one_of_all=is_one_of_all(),
            over_all=KeyOptions(
                timeout=self.timeout, attempts=self.attempts, allow_http=self.allow_http
            ),
        )

    def _inside(self) -> Inside | None:
        from bundler.project.options import Inside

        if self.image is None and (self.in_network or self.in_python):
            raise click.UsageError("--in-network and --in-python require --in.")
        return Inside(self.image, self.in_network, self.in_python) if self.image else None


def _mode(name: str) -> Callable[[Any], Any]:
    return click.option(
        name,
        "mode",
        type=click.Choice(REFRESH_MODES),
        help="When to fetch: always, only for keys without valid state, or never.",
    )


_REFRESH_OPTIONS = (
    click.option(
        "--key",
        "keys",
        multiple=True,
        shell_complete=completion.keys,
        help="Only this key (repeatable).",
    ),
    click.option(
        "--management-type",
        "management_types",
        multiple=True,
        type=click.Choice(MANAGEMENT_TYPES),
        help="Only keys of this type (repeatable).",
    ),
    click.option("--timeout", type=Duration(), help="Timeout per key, including retries.  [5m]"),
    click.option("--total-timeout", type=Duration(), help="Timeout for the whole refresh.  [30m]"),
    click.option("--attempts", type=click.IntRange(1), help="Maximum attempts per key.  [3]"),
    click.option(
        "--jobs",
        type=click.IntRange(1),
        help="Maximum number of keys refreshed concurrently.  [32]",
    ),
    click.option(
        "--allow-empty", multiple=True, metavar="KEY", help="Accept an empty state for KEY."
    ),
    click.option(
        "--allow-shrink", multiple=True, metavar="KEY", help="Accept a much smaller state for KEY."
    ),
    click.option(
        "--allow-removed",
        multiple=True,
        metavar="KEY",
        help="Allow KEY to exceed max-removed. Or pass the name of each removed definition.",
    ),
    click.option(
        "--baseline",
        shell_complete=completion.artifacts,
        metavar="ARTIFACT",
        help="Compare with (and fall back to) its states. Default: the published states.",
    ),
    click.option(
        "--allow-stale",
        type=Duration(),
        help="If a system is unavailable, use the last good state up to this age.",
    ),
    click.option(
        "--allow-http",
        multiple=True,
        metavar="'METHOD PATH STATUS'",
        help="A failed request to accept; * is a wildcard.",
    ),
    click.option(
        "--in",
        "image",
        metavar="IMAGE",
        help="Run the components in this image, which has the project installed.",
    ),
    click.option("--in-network", metavar="NETWORK", help="Network for --in, such as host."),
    click.option("--in-python", metavar="PATH", help="Interpreter in the --in image.  [python]"),
)
refresh_options = taken_as("refreshing", RefreshArguments, _mode("--refresh"), *_REFRESH_OPTIONS)
# `refresh --refresh` would read badly.
refresh_command_options = taken_as(
    "refreshing", RefreshArguments, _mode("--when"), *_REFRESH_OPTIONS
)


no_cache_option = click.option(
    "--no-cache",
    is_flag=True,
    envvar="STATE_BUNDLER_NO_CACHE",
    help="Load the project's components even if nothing has changed since the last time.",
)


verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Print a line for every key, even if nothing changed."
)


def narrator(*, quiet: bool = False, verbose: bool = False) -> ConsoleListener:
    """The listener that reports progress on stderr, from now on also this process's."""
    told = _narrator(quiet=quiet, verbose=verbose)
    context = click.get_current_context(silent=True)
    if context is not None:  # also after an error or a signal
        context.call_on_close(told.close)
    listener.of_process = told
    return told


def _narrator(*, quiet: bool, verbose: bool) -> ConsoleListener:
    console = Console(sys.stderr)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI"):
        from bundler.cli.live import LiveListener

        return LiveListener(console, quiet=quiet, verbose=verbose)
    from bundler.cli.ci import CiListener, system

    where = system()
    if where is None:
        return ConsoleListener(console, quiet=quiet, verbose=verbose)
    return CiListener(console, where, quiet=quiet, verbose=verbose)


class BuildArguments(NamedTuple):
    """Options of every command that embeds state in an artifact."""

    projects: ProjectArguments
    refreshing: RefreshArguments
    state_from: str | None
    plan: Path | None
    defer_from: str | None
    pin_versioned: bool | None
    embed_versioned: bool
    no_guard: bool
    environment: str | None
    quiet: bool

    def prepare(
        self,
        listener: Listener,
        start: Path | None = None,
        replaces: Sequence[str] = (),
        check: Callable[[Sequence[Project]], None] = lambda _: None,
    ) -> Prepared:
        """Checks git and refreshes, or uses the states of `state_from` or `plan`.

        replaces: the artifacts that get the new states. check: raises if no build of these projects
        can succeed, before anything is refreshed.
        """
        from bundler.workflows.pipeline import prepare, with_baseline

        projects, options = self.projects.find(listener, start), self.refreshing.options()
        check(projects)
        if replaces and self.state_from is None and self.plan is None:
            options = with_baseline(options, projects, replaces)
        if self.state_from is not None and self.plan is not None:
            raise click.UsageError("--state-from and --plan exclude each other.")
        if self.state_from is None and self.plan is None:
            options = with_stored(
                options, projects, pins=self.pin_versioned, embeds=self.embed_versioned
            )
        elif options.mode or options.keys or self.embed_versioned:
            option = "--state-from" if self.plan is None else "--plan"
            raise click.UsageError(
                f"{option} takes all states and refreshes none: drop --refresh, --key, "
                "--embed-versioned."
            )
        return prepare(
            projects,
            options,
            guarded=not self.no_guard,
            environment=self.environment,
            state_from=self.state_from,
            plan=self.plan,
            targets=replaces,
            defer_from=self.defer_from,
            held=click.get_current_context().with_resource(ExitStack()),
            listener=listener,
        )


def with_stored(
    options: RefreshOptions,
    projects: tuple[Project, ...],
    *,
    pins: bool | None = None,
    embeds: bool = False,
) -> RefreshOptions:
    """The options with the projects' stores, which are only used for versioned keys.

    pins: whether the manifest names versions; None if a store is configured. embeds: whether their
    states are embedded. A project without a store has no versions, unless the options require them.
    """
    import msgspec

    from bundler.cli.store_options import is_named, opened

    needed = embeds or bool(pins)
    stores = {
        store.url: store
        for project in projects
        if needed or (pins is None and is_named(project.config.store))
        for store in (opened(None, project.root),)
    }
    if not stores:
        return options
    from bundler.workflows.store_build import CurrentVersions

    current = CurrentVersions(tuple(stores.values()), embeds, needed)
    return msgspec.structs.replace(options, stored=current)


_own_build_options = taken_as(
    "building",
    BuildArguments,
    click.option(
        "--state-from",
        shell_complete=completion.artifacts,
        metavar="ARTIFACT",
        help="Embed the states of this artifact, or states.tar, instead of refreshing.",
    ),
    click.option(
        "--plan",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Ship exactly what this file of `plan --out` describes; nothing is refreshed.",
    ),
    click.option(
        "--defer-from",
        shell_complete=completion.artifacts,
        metavar="ARTIFACT",
        help="Let dbt defer to the dbt project in this artifact: its manifest is copied to "
        "state_path.",
    ),
    click.option(
        "--pin-versioned/--no-pin-versioned",
        default=None,
        help="Record the store's current versions of versioned keys in the manifest.  "
        "[if a store is configured]",
    ),
    click.option(
        "--embed-versioned",
        is_flag=True,
        help="Also embed versioned keys, so that the program starts while the store is down.",
    ),
    click.option("--no-guard", is_flag=True, help="Skip the git check. The run record says so."),
    click.option("--environment", help="Environment to name in the run record, such as staging."),
    click.option("-q", "--quiet", is_flag=True, help="Print only warnings, errors and the result."),
)
build_options = _together(project_options, refresh_options, _own_build_options)


class LoadArguments(NamedTuple):
    """Whether and how the code location is loaded inside the finished artifact."""

    load_check: bool | None
    load_module: tuple[str, ...]
    min_definitions: int | None

    def add_to(self, prepared: Prepared, *, by_default: bool = False) -> Prepared:
        """Adds the load check that the options ask for.

        by_default: also adds one without options, if the module to load is known.
        """
        import msgspec

        from bundler.errors import UsageError

        named = bool(self.load_module) or self.min_definitions is not None
        if self.load_check is False and named:
            raise click.UsageError("--no-load-check excludes --load-module and --min-definitions.")
        is_required = bool(self.load_check) or named
        if self.load_check is False or not (is_required or by_default):
            said = "--no-load-check was given" if by_default else prepared.not_loaded
            return msgspec.structs.replace(prepared, not_loaded=said)
        try:
            return self._added_to(prepared, is_required=is_required)
        except UsageError:
            if is_required:
                raise
            said = "the module to load is unknown; name it with --load-module"
            return msgspec.structs.replace(prepared, not_loaded=said)

    def _added_to(self, prepared: Prepared, *, is_required: bool) -> Prepared:
        import msgspec

        from bundler.refresh.surroundings import surroundings_of
        from bundler.workflows import loadcheck

        environ: dict[str, str] = {}
        for project in prepared.projects:
            environ.update(surroundings_of(project, named=(), excluded=()).environment)
        check = loadcheck.LoadCheck(
            loadcheck.targets_of(prepared.projects, self.load_module),
            self._least(prepared, is_required=is_required),
            loadcheck.environment_of(prepared.refreshed.record, environ),
            compares=is_required and self.min_definitions is None,
            is_required=is_required,
            may_be_absent=not (is_required or any(it.dagster for it in prepared.projects)),
        )
        return msgspec.structs.replace(prepared, load_check=check)

    def _least(self, prepared: Prepared, *, is_required: bool) -> int:
        """Importing a module of components makes no definitions, and a location needs none."""
        if self.min_definitions is not None:
            return self.min_definitions
        has_dagster = any(project.dagster is not None for project in prepared.projects)
        return int(is_required or (has_dagster and bool(prepared.bundles)))


load_options = taken_as(
    "loading",
    LoadArguments,
    click.option(
        "--load-check/--no-load-check",
        default=None,
        help="Load the code location in the finished artifact, without network access. `build` "
        "does so if it can run the artifact here; with --load-check the load is required, and "
        "must find at least as many definitions as in the current artifact of that name.",
    ),
    click.option(
        "--load-module",
        multiple=True,
        metavar="MODULE[:NAME]",
        help="What --load-check loads. Default: the module a code server would load.",
    ),
    click.option(
        "--min-definitions",
        type=click.IntRange(0),
        help="Minimum number of definitions.  [1, or as many as the older artifact has]",
    ),
)
