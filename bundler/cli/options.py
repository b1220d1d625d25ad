"""Options that more than one command has, and what they add up to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bundler.cli.console import Console, ConsoleListener, size
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.artifacts.verify import Verdict
    from bundler.project.options import Inside, RefreshMode, RefreshOptions
    from bundler.project.projects import Project
    from bundler.workflows.pipeline import Prepared

# The values of `RefreshMode` and `ManagementType`, whose import --help can do without.
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


project_options = _together(
    click.option(
        "--project",
        "directories",
        type=_DIRECTORY,
        multiple=True,
        help="A project's directory; may be repeated. Default: the one you are in.",
    ),
    click.option("--all", "everything", is_flag=True, help="All projects of the workspace."),
    click.option(
        "--python",
        type=click.Path(path_type=Path),
        envvar="STATE_BUNDLER_PYTHON",
        help="The project's interpreter. Default: as dg and uv find it.",
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


refresh_options = _together(
    click.option(
        "--refresh",
        "mode",
        type=click.Choice(REFRESH_MODES),
        help="Ask the external systems always, for keys without a state that verifies, or never.",
    ),
    click.option("--key", "keys", multiple=True, help="Only this key; may be repeated."),
    click.option(
        "--management-type",
        "management_types",
        multiple=True,
        type=click.Choice(MANAGEMENT_TYPES),
        help="Only keys of this type; may be repeated.",
    ),
    click.option("--timeout", type=Duration(), help="For one key, all attempts together.  [5m]"),
    click.option("--total-timeout", type=Duration(), help="For the whole refresh.  [30m]"),
    click.option("--attempts", type=click.IntRange(1), help="Most attempts for a key.  [3]"),
    click.option("--jobs", type=click.IntRange(1), help="Keys at once.  [32]"),
    click.option(
        "--allow-empty", multiple=True, metavar="KEY", help="An empty state of KEY is right."
    ),
    click.option(
        "--allow-shrink", multiple=True, metavar="KEY", help="A much smaller state of KEY is right."
    ),
    click.option(
        "--baseline",
        metavar="ARTIFACT",
        help="Compare with its states, and fall back to them; else with what is published here.",
    ),
    click.option(
        "--allow-stale",
        type=Duration(),
        help="Where a system is unavailable, use the last good state if it is not older than this.",
    ),
    click.option(
        "--allow-http",
        multiple=True,
        metavar="'METHOD PATH STATUS'",
        help="A failed request that is expected, with * wildcards.",
    ),
    click.option(
        "--in",
        "image",
        metavar="IMAGE",
        help="Run the components in this image, where the project is installed, not here.",
    ),
    click.option("--in-network", metavar="NETWORK", help="The network of --in, such as host."),
    click.option("--in-python", metavar="PATH", help="The interpreter in --in.  [python]"),
)


def options_of(given: dict[str, Any]) -> RefreshOptions:
    """The options that `refresh_options` added, taken out of a command's arguments."""
    from bundler.project.options import KeyOptions, RefreshOptions

    inside = _inside(given.pop("image"), given.pop("in_network"), given.pop("in_python"))
    mode: RefreshMode | None = given.pop("mode")
    return RefreshOptions(
        mode=mode,
        keys=given.pop("keys"),
        management_types=given.pop("management_types"),
        total_timeout=given.pop("total_timeout"),
        jobs=given.pop("jobs"),
        allow_empty=given.pop("allow_empty"),
        allow_shrink=given.pop("allow_shrink"),
        baseline=given.pop("baseline"),
        allow_stale=given.pop("allow_stale"),
        inside=inside,
        over_all=KeyOptions(
            timeout=given.pop("timeout"),
            attempts=given.pop("attempts"),
            allow_http=given.pop("allow_http"),
        ),
    )


def _inside(image: str | None, network: str | None, python: str | None) -> Inside | None:
    from bundler.project.options import Inside

    if image is None and (network or python):
        raise click.UsageError("--in-network and --in-python say more of --in, which is missing.")
    return Inside(image, network, python) if image else None


def find_projects(
    directories: tuple[Path, ...],
    *,
    everything: bool,
    python: Path | None,
    listener: ConsoleListener,
    start: Path | None = None,
) -> tuple[Project, ...]:
    """The projects that a command is about; says which interpreter each of them has."""
    from bundler.project.projects import find

    projects = find(directories, start=start, everything=everything, python=python)
    for project in projects:
        interpreter = project.interpreter
        listener.note(f"{project.name}: {interpreter.path} (by {interpreter.found_by})")
        if project.config.given:
            listener.note(f"{project.name}: configured: {', '.join(project.config.given)}")
    return projects


def narrator(*, quiet: bool = False) -> ConsoleListener:
    """The listener that tells the run's story on stderr."""
    console = Console(sys.stderr)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI"):
        from bundler.cli.live import LiveListener

        live = LiveListener(console, quiet=quiet)
        context = click.get_current_context(silent=True)
        if context is not None:  # also when the command ends by an error or a signal
            context.call_on_close(live.close)
        return live
    from bundler.cli.ci import CiListener, system

    where = system()
    if where is None:
        return ConsoleListener(console, quiet=quiet)
    folded = CiListener(console, where, quiet=quiet)
    context = click.get_current_context(silent=True)
    if context is not None:
        context.call_on_close(folded.close)
    return folded


# What every kind of build takes.
build_options = _together(
    project_options,
    refresh_options,
    click.option(
        "--state-from",
        metavar="ARTIFACT",
        help="Take the states of this artifact, or states.tar, instead of a refresh.",
    ),
    click.option(
        "--pin-versioned/--no-pin-versioned",
        default=None,
        help="Name in the manifest the versions that the store holds now of versioned keys.  "
        "[if a store is configured]",
    ),
    click.option(
        "--embed-versioned",
        is_flag=True,
        help="Embed them, too: the program then starts while the store is down.",
    ),
    click.option("--no-guard", is_flag=True, help="Do not ask git. The artifact's record says so."),
    click.option("--environment", help="A name for the run record, such as staging."),
    click.option("-q", "--quiet", is_flag=True, help="Only warnings, errors and the result."),
)


# What takes an artifact that can be run.
load_options = _together(
    click.option(
        "--load-check", is_flag=True, help="Load the code location inside, without network."
    ),
    click.option(
        "--load-module",
        multiple=True,
        metavar="MODULE[:NAME]",
        help="What --load-check loads. Default: the module that a code server loads.",
    ),
    click.option(
        "--min-definitions",
        type=click.IntRange(0),
        help="The least that --load-check must find.  [1, or what the older artifact had]",
    ),
)


def with_load_check(given: dict[str, Any]) -> Callable[[Prepared], Prepared]:
    """The options that `load_options` added, taken out, to be applied once projects are known."""
    wanted, modules = given.pop("load_check"), given.pop("load_module")
    least: int | None = given.pop("min_definitions")

    def apply(prepared: Prepared) -> Prepared:
        if not (wanted or modules or least is not None):
            return prepared
        import msgspec

        from bundler.refresh.discovery import surroundings_of
        from bundler.workflows import loadcheck

        environ: dict[str, str] = {}
        for project in prepared.projects:
            environ.update(surroundings_of(project, named=(), excluded=()).environment)
        check = loadcheck.LoadCheck(
            loadcheck.targets_of(prepared.projects, modules),
            1 if least is None else least,
            loadcheck.environment_of(prepared.refreshed.record, environ),
            compares=least is None,
        )
        return msgspec.structs.replace(prepared, load_check=check)

    return apply


def prepare_from(
    given: dict[str, Any], listener: ConsoleListener, start: Path | None = None
) -> Prepared:
    from bundler.workflows.pipeline import prepare

    projects = find_projects(
        given.pop("directories"),
        everything=given.pop("everything"),
        python=given.pop("python"),
        listener=listener,
        start=start,
    )
    no_guard, environment = given.pop("no_guard"), given.pop("environment")
    options, state_from = options_of(given), given.pop("state_from")
    embeds, pins = given.pop("embed_versioned"), given.pop("pin_versioned")
    if state_from is not None and (options.mode or options.keys or embeds):
        raise click.UsageError("--state-from takes all states, and refreshes none.")
    if state_from is None:
        options = _with_stored(options, projects, embeds=embeds, pins=pins)
    return prepare(
        projects,
        options,
        guarded=not no_guard,
        environment=environment,
        state_from=state_from,
        listener=listener,
    )


def _with_stored(
    options: RefreshOptions, projects: tuple[Project, ...], *, embeds: bool, pins: bool | None
) -> RefreshOptions:
    """The options with the projects' stores, which are asked only for versioned keys.

    pins: None where nothing was said: then a project without a store has no versions.
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

    return msgspec.structs.replace(
        options, stored=CurrentVersions(tuple(stores.values()), embeds, needed)
    )


def show_verdict(verdict: Verdict, name: str | None = None) -> None:
    """Says what an artifact holds, here and in the summary of a CI step."""
    from bundler.cli.ci import summarise, verdict_summary

    summarise(verdict_summary(verdict, name or verdict.name))
    console = Console(sys.stdout)
    digest = f" {verdict.digest}" if verdict.digest else ""
    tick = console.styled(console.sign("✓", "ok"), "green", "bold")
    console.line(f"{tick} {name or verdict.name}{digest}")
    for directory in verdict.directories:
        if directory.manifest is not None:
            console.line(
                f"  {directory.path}: {counted(len(directory.manifest.states), 'state')}, "
                f"{size(directory.manifest.size)}, content {directory.manifest.content_digest[:12]}"
            )
