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


def narrator(*, quiet: bool = False) -> ConsoleListener:
    """The listener that tells the run's story on stderr."""
    return ConsoleListener(Console(sys.stderr), quiet=quiet)
