"""``state-bundler refresh``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.ci import finished, keys_summary, summarise, table
from bundler.cli.console import Console, size
from bundler.cli.help import Grouped
from bundler.cli.options import (
    QUIET,
    Options,
    ProjectArguments,
    RefreshCommandArguments,
    flag,
    formats,
    narrator,
    nested,
    option,
    takes,
)
from bundler.cli.store_options import (
    RUN,
    pushed_document,
    run_of,
    show_pushed,
    show_staged,
)

if TYPE_CHECKING:
    from bundler.artifacts.names import ArtifactName
    from bundler.listener import Listener
    from bundler.project.options import RefreshOptions
    from bundler.project.projects import Project
    from bundler.refresh.run import Refreshed
    from bundler.workflows.store_refresh import Into

_SHOWN_DIGEST = 12


class RefreshCommand(Options):
    projects: ProjectArguments = nested(ProjectArguments)
    refreshing: RefreshCommandArguments = nested(RefreshCommandArguments)
    push: bool = flag("--push", "Refresh versioned keys too and push all states to the store.")
    shard: str | None = option(
        "--shard N/COUNT", "Refresh and push one shard of the keys; `store join` completes it."
    )
    run: str | None = RUN
    wait: float | None = option(
        "--wait", "How long to wait for a concurrent refresh of the same keys."
    )
    url: str | None = option(
        "--store", "The store's URL. Default: the configured one.", envvar="STATE_BUNDLER_STORE"
    )
    output: str | None = option(
        "-o, --output FILE.tar|oci:DIR[:TAG]",
        "Write the states for other jobs, which use them with --state-from.",
    )
    dry_run: bool = flag("--dry-run", "Show what would be fetched; no external system is called.")
    quiet: bool = flag("-q, --quiet", QUIET)
    verbose: bool = flag("-v, --verbose", "Print a line for every key, even if nothing changed.")
    style: str = formats("json")


@click.command(cls=Grouped)
@takes("given", RefreshCommand)
def refresh(given: RefreshCommand) -> None:
    """Refresh the state of every component, all or nothing.

    \b
    Examples:
      state-bundler refresh
      state-bundler refresh --key 'FivetranAccountComponent[acme]' --timeout 2m
      state-bundler refresh --when missing
      state-bundler refresh --push
      state-bundler refresh --shard 3/10
      state-bundler refresh -o states.tar
      state-bundler refresh --dry-run
    """
    if given.output is not None and (given.push or given.shard is not None):
        raise click.UsageError("-o cannot be combined with --push or --shard.")
    if given.dry_run and (given.push or given.shard is not None or given.output is not None):
        raise click.UsageError("--dry-run cannot be combined with --push, --shard or -o.")
    destination = _destination(given.output)
    listener = narrator(quiet=given.quiet, verbose=given.verbose)
    found, options = given.projects.selection().find(listener), given.refreshing.options()
    if given.dry_run:
        _preview(found, options, listener, given.style)
    elif given.shard is not None:
        _refresh_shard(found, options, listener, given, given.shard)
    elif given.push:
        _push(found, options, listener, given)
    else:
        _refresh(found, options, listener, destination, given.style)


def _destination(output: str | None) -> ArtifactName | None:
    if output is None:
        return None
    from bundler.workflows.export import destination_of

    return destination_of(output)


def _refresh(
    projects: Sequence[Project],
    options: RefreshOptions,
    listener: Listener,
    destination: ArtifactName | None,
    style: str,
) -> None:
    if destination is None:
        from bundler.refresh.run import refresh as only_refresh

        _show(only_refresh(projects, options, listener), style, written=None)
        return
    from bundler.cli.documents import WrittenArchive
    from bundler.workflows.export import refresh_and_export

    refreshed, digest = refresh_and_export(projects, options, destination, listener)
    _show(refreshed, style, written=WrittenArchive(name=str(destination), digest=digest))
    if style == "text":
        Console(sys.stdout).line(f"{destination} {digest}")


def _preview(
    projects: Sequence[Project], options: RefreshOptions, listener: Listener, style: str
) -> None:
    from bundler.refresh.run import preview

    keys = preview(projects, options, listener)
    if style == "json":
        from bundler.cli.documents import changes, print_document

        print_document(changes.RefreshDryRun, keys=keys)
        return
    rows = [(item.key, item.action, item.declared or "-") for item in keys]
    Console(sys.stdout).table(("KEY", "ACTION", "DECLARED"), rows)


def _push(
    projects: Sequence[Project],
    options: RefreshOptions,
    listener: Listener,
    given: RefreshCommand,
) -> None:
    from bundler.workflows.store_refresh import refresh_and_push

    into = _into(projects, given)
    refreshed, pushed = refresh_and_push(projects, options, into, listener)
    _show(refreshed, given.style, pushed=pushed_document(pushed, into.store.url))
    if given.style == "text":
        show_pushed(pushed, into.store.url)


def _refresh_shard(
    projects: Sequence[Project],
    options: RefreshOptions,
    listener: Listener,
    given: RefreshCommand,
    shard: str,
) -> None:
    from bundler.store.shards import parse_shard
    from bundler.workflows.store_refresh import refresh_shard

    into, number, run = _into(projects, given), parse_shard(shard), run_of(given.run)
    staged = refresh_shard(projects, options, into, run=run, shard=number, listener=listener)
    show_staged(into.store, staged, run, given.style)


def _into(projects: Sequence[Project], given: RefreshCommand) -> Into:
    from bundler.store.configured import open_configured
    from bundler.store.local import author
    from bundler.workflows.store_refresh import Into

    root = projects[0].root
    return Into(open_configured(given.url, root), author(root), given.wait or 0.0)


def _show(refreshed: Refreshed, style: str, **more: Any) -> None:
    """Prints the states; more: members of the JSON document."""
    if style == "json":
        _print_json(refreshed, more)
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
        if style == "text":
            console.table(("KEY", "SIZE", "DIGEST", ""), rows, "SIZE")
        summarise(["### States", "", *table(("key", "size", "digest", ""), rows)])
    summarise(keys_summary(finished()))


def _print_json(refreshed: Refreshed, more: Mapping[str, Any]) -> None:
    from bundler.cli import documents
    from bundler.state.manifest import KeyRefresh

    keys = [
        documents.RefreshedKey.of(
            made or KeyRefresh(state.key),
            directory=bundle.place,
            changed=state.key in refreshed.changed,
            size=state.size,
            dir_hash=state.digest.dir_hash,
        )
        for bundle, state, made in refreshed.states()
    ]
    documents.print_document(
        documents.Refresh,
        changed=bool(refreshed.changed),
        content_digests={it.place: it.manifest.content_digest for it in refreshed.bundles},
        keys=keys,
        **more,
    )
