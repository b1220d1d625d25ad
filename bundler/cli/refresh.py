"""``state-bundler refresh``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.ci import finished, keys_summary, summarise, table
from bundler.cli.console import Console, short, size
from bundler.cli.help import Grouped
from bundler.cli.options import (
    QUIET,
    Options,
    ProjectArguments,
    RefreshCommandArguments,
    flag,
    formats,
    narrator,
    option,
    takes,
)
from bundler.cli.store_options import (
    RUN,
    pushed_document,
    run_of,
    show_pushed,
    show_staged,
    warn_of_displaced,
)

if TYPE_CHECKING:
    from bundler.listener import Listener
    from bundler.project.options import RefreshOptions
    from bundler.project.selection import Selection
    from bundler.refresh.run import Refreshed

    _Asked = tuple[Selection, RefreshOptions, Listener]


class RefreshCommand(Options):
    projects: ProjectArguments
    refreshing: RefreshCommandArguments
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
    asked = (
        given.projects.selection(),
        given.refreshing.options(),
        narrator(quiet=given.quiet, verbose=given.verbose),
    )
    if given.dry_run:
        _preview(asked, given.style)
    elif given.output is not None:
        _export(asked, given.output, given.style)
    elif given.shard is not None:
        _refresh_shard(asked, given, given.shard)
    elif given.push:
        _push(asked, given)
    else:
        from bundler.workflows.refresh import refresh as only_refresh

        _show(only_refresh(*asked), given.style, written=None)


def _preview(asked: _Asked, style: str) -> None:
    from bundler.workflows.refresh import preview

    keys = preview(*asked)
    if style == "json":
        from bundler.cli.documents import changes, print_document

        print_document(changes.RefreshDryRun, keys=keys)
        return
    rows = [(item.key, item.action, item.declared or "-") for item in keys]
    Console(sys.stdout).table(("KEY", "ACTION", "DECLARED"), rows)


def _export(asked: _Asked, output: str, style: str) -> None:
    from bundler.cli.documents import WrittenArchive
    from bundler.workflows.export import refresh_and_export

    refreshed, name, digest = refresh_and_export(*asked, output)
    _show(refreshed, style, written=WrittenArchive(name=name, digest=digest))
    if style == "text":
        Console(sys.stdout).line(f"{name} {digest}")


def _push(asked: _Asked, given: RefreshCommand) -> None:
    from bundler.workflows.store_refresh import refresh_and_push

    refreshed, pushed, store = refresh_and_push(*asked, url=given.url, wait=given.wait or 0.0)
    _show(refreshed, given.style, pushed=pushed_document(pushed, store.url))
    if given.style == "text":
        show_pushed(pushed, store)
    else:
        warn_of_displaced(store, pushed.moves)


def _refresh_shard(asked: _Asked, given: RefreshCommand, shard: str) -> None:
    from bundler.store.shards import parse_shard
    from bundler.workflows.store_refresh import refresh_shard

    run = run_of(given.run)
    store, staged = refresh_shard(
        *asked, url=given.url, wait=given.wait or 0.0, run=run, shard=parse_shard(shard)
    )
    show_staged(store, staged, run, given.style)


def _show(refreshed: Refreshed, style: str, **more: Any) -> None:
    """Prints the states; more: members of the JSON document."""
    if style == "json":
        _print_json(refreshed, more)
    states = list(refreshed.states())
    headers = ["KEY", "SIZE", "DIGEST", ""]
    rows = [
        [
            state.key,
            size(state.size),
            short(state.digest.dir_hash),
            "changed" if is_changed else "unchanged",
        ]
        for _, state, _, is_changed in states
    ]
    if len({state.key for _, state, _, _ in states}) < len(states):  # of several projects
        headers.append("DIRECTORY")
        for row, (bundle, *_) in zip(rows, states, strict=True):
            row.append(os.path.relpath(bundle.root))
    if style == "text" and rows:
        Console(sys.stdout).table(headers, rows, "SIZE")
    if rows:
        summarise(["### States", "", *table([each.lower() for each in headers], rows)])
    summarise(keys_summary(finished()))


def _print_json(refreshed: Refreshed, more: Mapping[str, Any]) -> None:
    from bundler.cli import documents
    from bundler.state.manifest import KeyRefresh

    keys = [
        documents.RefreshedKey.of(
            made or KeyRefresh(state.key),
            directory=bundle.place,
            changed=is_changed,
            size=state.size,
            dir_hash=state.digest.dir_hash,
        )
        for bundle, state, made, is_changed in refreshed.states()
    ]
    documents.print_document(
        documents.Refresh,
        changed=bool(refreshed.changed),
        content_digests={it.place: it.manifest.content_digest for it in refreshed.bundles},
        keys=keys,
        **more,
    )
