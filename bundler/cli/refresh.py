"""``state-bundler refresh``, and the options that every command with a refresh in it takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from bundler.cli.console import Console, ConsoleListener, size
from bundler.manifest import ManagementType
from bundler.options import REFRESH_MODES, RefreshMode

if TYPE_CHECKING:
    from bundler.options import RefreshOptions
    from bundler.refresh import Refreshed

_Command = TypeVar("_Command", bound=Callable[..., Any])
_SHOWN_DIGEST = 12


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """A number and a unit, as in the configuration: ``30s``, ``5m``, ``24h``."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from bundler.config import seconds
        from bundler.errors import ConfigurationError

        if isinstance(value, float):
            return value
        try:
            return seconds(value)
        except ConfigurationError as error:
            self.fail(f"{error.what} {error.hint}", param, ctx)


_OPTIONS = (
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
        type=click.Choice(get_args(ManagementType)),
        help="Only keys of this type; may be repeated.",
    ),
    click.option("--timeout", type=Duration(), help="For one key, all attempts together.  [5m]"),
    click.option("--total-timeout", type=Duration(), help="For the whole refresh.  [30m]"),
    click.option("--attempts", type=click.IntRange(1), help="Most attempts for a key.  [3]"),
    click.option("--jobs", type=click.IntRange(1), help="Keys at once.  [16]"),
    click.option(
        "--allow-empty", multiple=True, metavar="KEY", help="An empty state of KEY is right."
    ),
    click.option(
        "--allow-shrink", multiple=True, metavar="KEY", help="A much smaller state of KEY is right."
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
)


def refresh_options(command: _Command) -> _Command:
    """Adds the options that say how to refresh; `options_of` makes a value of them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options_of(given: dict[str, Any]) -> RefreshOptions:
    """The options that `refresh_options` added, taken out of a command's arguments."""
    from bundler.options import KeyOptions, RefreshOptions

    mode: RefreshMode | None = given.pop("mode")
    return RefreshOptions(
        mode=mode,
        keys=given.pop("keys"),
        management_types=given.pop("management_types"),
        total_timeout=given.pop("total_timeout"),
        jobs=given.pop("jobs"),
        allow_empty=given.pop("allow_empty"),
        allow_shrink=given.pop("allow_shrink"),
        allow_stale=given.pop("allow_stale"),
        over_all=KeyOptions(
            timeout=given.pop("timeout"),
            attempts=given.pop("attempts"),
            allow_http=given.pop("allow_http"),
        ),
    )


@click.command()
@click.option(
    "--project",
    "directories",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="A project's directory; the current one if nothing is named.",
)
@click.option("--all", "everything", is_flag=True, help="Every project of the workspace.")
@click.option("--python", type=click.Path(path_type=Path), help="The project's interpreter.")
@refresh_options
def refresh(
    directories: tuple[Path, ...], everything: bool, python: Path | None, **given: Any
) -> None:
    """Refresh the state of every component: all of them, or nothing.

    \b
    Examples:
      state-bundler refresh
      state-bundler refresh --key 'FivetranAccountComponent[acme]' --timeout 2m
      state-bundler refresh --refresh missing
    """
    from bundler.project import find
    from bundler.refresh import refresh as run

    listener = ConsoleListener(Console(sys.stderr))
    projects = find(directories, everything=everything, python=python)
    for project in projects:
        listener.note(f"{project.name}: {project.interpreter.path}")
    _show(run(projects, options_of(given), listener))


def _show(refreshed: Refreshed) -> None:
    console = Console(sys.stdout)
    for bundle in refreshed.bundles:
        rows = [
            (
                state.key,
                size(state.size),
                state.digest.dir_hash[:_SHOWN_DIGEST],
                "changed" if state.key in refreshed.changed else "unchanged",
            )
            for state in bundle.manifest.states
        ]
        console.table(("KEY", "SIZE", "DIGEST", ""), rows, "SIZE")
