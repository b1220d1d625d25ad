"""``state-bundler refresh``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from bundler.cli.ci import summarise, table
from bundler.cli.console import Console, size
from bundler.cli.help import Grouped
from bundler.cli.options import (
    Duration,
    ProjectArguments,
    RefreshArguments,
    narrator,
    project_options,
    refresh_command_options,
)
from bundler.cli.store_options import opened, run_of, show_pushed, show_staged

if TYPE_CHECKING:
    from bundler.artifacts.names import ArtifactName
    from bundler.project.options import RefreshOptions
    from bundler.project.projects import Project
    from bundler.refresh.run import Refreshed
    from bundler.workflows.store_refresh import Into

_SHOWN_DIGEST = 12


@click.command(cls=Grouped)
@project_options
@refresh_command_options
@click.option(
    "--push", is_flag=True, help="Refresh versioned keys too and push all states to the store."
)
@click.option(
    "--shard",
    metavar="N/COUNT",
    help="Refresh and push one shard of the keys; `store join` completes it.",
)
@click.option("--run", help="An ID shared by all shards of one refresh. Default: the CI run's ID.")
@click.option(
    "--wait", type=Duration(), help="How long to wait for a concurrent refresh of the same keys."
)
@click.option(
    "--store",
    "url",
    envvar="STATE_BUNDLER_STORE",
    help="The store's URL. Default: the configured one.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE.tar|oci:DIR[:TAG]",
    help="Write the states for other jobs, which use them with --state-from.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings, errors and the result.")
def refresh(
    *,
    projects: ProjectArguments,
    refreshing: RefreshArguments,
    push: bool,
    shard: str | None,
    run: str | None,
    wait: float | None,
    url: str | None,
    output: str | None,
    quiet: bool,
) -> None:
    """Refresh the state of every component, all or nothing.

    \b
    Examples:
      state-bundler refresh
      state-bundler refresh --key 'FivetranAccountComponent[acme]' --timeout 2m
      state-bundler refresh --when missing
      state-bundler refresh --push
      state-bundler refresh --shard 3/10
      state-bundler refresh -o states.tar
    """
    from bundler.refresh.run import refresh as only_refresh

    if output is not None and (push or shard is not None):
        raise click.UsageError("-o cannot be combined with --push or --shard.")
    destination = _destination(output)
    listener = narrator(quiet=quiet)
    found, options = projects.find(listener), refreshing.options()
    if shard is not None:
        _push_shard(found, options, _into(found, url, wait), shard, run)
    elif push:
        from bundler.workflows.store_refresh import refresh_and_push

        into = _into(found, url, wait)
        refreshed, pushed = refresh_and_push(found, options, into, listener)
        _show(refreshed)
        show_pushed(pushed, into.store.url)
    else:
        held = click.get_current_context().with_resource(ExitStack()) if destination else None
        refreshed = only_refresh(found, options, listener, held=held)
        _show(refreshed)
        if destination is not None:
            _export(refreshed, found, destination)


def _destination(output: str | None) -> ArtifactName | None:
    if output is None:
        return None
    from bundler.workflows.export import destination_of

    return destination_of(output)


def _export(refreshed: Refreshed, projects: Sequence[Project], destination: ArtifactName) -> None:
    from bundler.workflows.export import export_states

    digest = export_states(refreshed, projects, destination, narrator())
    Console(sys.stdout).line(f"{destination} {digest}")


def _into(projects: Sequence[Project], url: str | None, wait: float | None) -> Into:
    from bundler.store import local
    from bundler.workflows.store_refresh import Into

    root = projects[0].root
    return Into(opened(url, root), local.author(root), wait or 0.0)


def _push_shard(
    projects: Sequence[Project], options: RefreshOptions, into: Into, shard: str, run: str | None
) -> None:
    from bundler.store import shards
    from bundler.workflows.store_refresh import refresh_shard

    index_and_count, name = shards.parse_shard(shard), run_of(run)
    staged = refresh_shard(
        projects, options, into, run=name, shard=index_and_count, listener=narrator()
    )
    show_staged(into.store, staged, name)


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
        summarise(["### States", "", *table(("key", "size", "digest", ""), rows)])
