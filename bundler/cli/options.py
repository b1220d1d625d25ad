"""Options that more than one command has, and what they add up to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bundler.cli.console import Console, ConsoleListener

if TYPE_CHECKING:
    from bundler.options import RefreshOptions
    from bundler.project import Project

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

refresh_options = _together(
    click.option(
        "--refresh",
        "mode",
        type=click.Choice(["always", "missing", "never"]),
        envvar="STATE_BUNDLER_REFRESH",
        help="Ask the external systems always (the default), only for keys without state, or never.",
    ),
    click.option("--key", "keys", multiple=True, help="Only this defs state key; * is a wildcard."),
    click.option(
        "--timeout",
        envvar="STATE_BUNDLER_TIMEOUT",
        help="For each key, such as 90s or 5m. Default: 5m.",
    ),
    click.option("--total-timeout", help="For the whole refresh. Default: 30m."),
    click.option("--jobs", type=click.IntRange(min=1), help="Keys at once. Default: 16."),
    click.option(
        "--allow-empty", multiple=True, metavar="KEY", help="An empty state of KEY is no failure."
    ),
    click.option(
        "--allow-shrink", multiple=True, metavar="KEY", help="A much smaller state is no failure."
    ),
    click.option(
        "--allow-stale",
        metavar="AGE",
        help="Where a system is unavailable, take the last state if it is younger, such as 24h.",
    ),
    click.option(
        "--baseline",
        type=_DIRECTORY,
        help="A state directory to compare with. Default: what was last published.",
    ),
)


def find_projects(
    directories: tuple[Path, ...],
    *,
    everything: bool,
    python: Path | None,
    listener: ConsoleListener,
    start: Path | None = None,
) -> tuple[Project, ...]:
    """The projects that a command is about; says which interpreter each of them has."""
    from bundler.project import find

    projects = find(directories, start=start, everything=everything, python=python)
    for project in projects:
        interpreter = project.interpreter
        listener.note(f"{project.name}: {interpreter.path} (by {interpreter.found_by})")
        if project.config.given:
            listener.note(f"{project.name}: configured: {', '.join(project.config.given)}")
    return projects


def as_refresh_options(
    *,
    mode: str | None,
    keys: tuple[str, ...],
    timeout: str | None,
    total_timeout: str | None,
    jobs: int | None,
    allow_empty: tuple[str, ...],
    allow_shrink: tuple[str, ...],
    allow_stale: str | None,
    baseline: Path | None,
) -> RefreshOptions:
    """The command line's refresh options as a value; `refresh` lays them over the project's."""
    from typing import cast

    from bundler.config import seconds
    from bundler.options import KeyOptions, RefreshMode, RefreshOptions

    return RefreshOptions(
        mode=cast("RefreshMode | None", mode),
        keys=keys,
        total_timeout=seconds(total_timeout) if total_timeout else None,
        jobs=jobs,
        defaults=KeyOptions(timeout=seconds(timeout) if timeout else None),
        baseline=baseline,
        allow_empty=allow_empty,
        allow_shrink=allow_shrink,
        allow_stale=seconds(allow_stale) if allow_stale else None,
    )


def narrator(*, quiet: bool = False) -> ConsoleListener:
    """The listener that tells the run's story on stderr."""
    return ConsoleListener(Console(sys.stderr), quiet=quiet)
