"""``state-bundler refresh``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.console import Console, size
from bundler.cli.options import (
    find_projects,
    narrator,
    options_of,
    project_options,
    refresh_options,
)

if TYPE_CHECKING:
    from bundler.refresh import Refreshed

_SHOWN_DIGEST = 12


@click.command()
@project_options
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
    from bundler.refresh import refresh as run

    listener = narrator()
    projects = find_projects(directories, everything=everything, python=python, listener=listener)
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
