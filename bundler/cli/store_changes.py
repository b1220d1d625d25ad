"""The commands of ``state-bundler store`` that change the store."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.console import Console, safe, size
from bundler.cli.options import Duration, format_option
from bundler.cli.store_options import (
    NOWHERE,
    StoreArguments,
    moment,
    run_of,
    show_pushed,
    show_staged,
    store_options,
)
from bundler.errors import UsageError
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.store.pushing import NewState
    from bundler.store.records import Current

_NOTE = click.option("--note", default="", help="A note to store in the history.")
_RUN = click.option(
    "--run", help="An ID shared by all shards of one refresh. Default: the CI run's ID."
)


@click.command(short_help="Push published states and make them current.")
@store_options
@click.option("--key", "keys", multiple=True, help="Only this key (repeatable).")
@click.option("--shard", metavar="N/COUNT", help="Push one shard; `store join` completes it.")
@_RUN
@_NOTE
@format_option
@click.argument("artifact", required=False)
def push(
    *,
    where: StoreArguments,
    keys: tuple[str, ...],
    shard: str | None,
    run: str | None,
    note: str,
    style: str,
    artifact: str | None,
) -> None:
    """Push the published states of the project, or of ARTIFACT, and make them current.

    All become current atomically. A version equivalent to the current one is not uploaded.

    \b
    Examples:
      state-bundler store push
      state-bundler store push app.pex --note 'as shipped in 1.4'
      state-bundler store push --shard 3/10
    """
    from bundler.store import local

    with tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        states = local.select(_states(artifact, where.root, Path(scratch) / "states"), keys)
        store, author = where.open(), where.author(note)
        if shard is not None:
            from bundler.store import shards

            number, name = shards.parse_shard(shard), run_of(run)
            show_staged(store, shards.stage(store, states, name, number, author), name, style)
        else:
            show_pushed(store.push(states, author), store.url, style)


def _states(artifact: str | None, root: Path, scratch: Path) -> list[NewState]:
    from bundler.store import local

    if artifact is None:
        return local.published(root)
    from bundler.artifacts.extract import extract
    from bundler.artifacts.open import open_artifact

    with open_artifact(artifact) as found:
        extract(found, scratch)
    return local.published(scratch)


@click.command(short_help="Make the states of all shards current, atomically.")
@store_options
@_RUN
@_NOTE
@format_option
@click.argument("count", type=click.IntRange(1))
def join(*, where: StoreArguments, run: str | None, note: str, style: str, count: int) -> None:
    """Make the states of all COUNT shards current atomically; fails if a shard is missing.

    Succeeds if the run was already joined, so that a job can be retried.

    \b
    Example:
      state-bundler store join 10 --run "$GITHUB_RUN_ID"
    """
    from bundler.store import shards
    from bundler.store.records import Joined

    name = run_of(run)
    done = shards.join(where.open(), name, count, where.author(note))
    if isinstance(done, Joined) and style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StoreSet, done, moves=[])
    elif isinstance(done, Joined):
        told = f"Run {safe(name)} was already joined: set {done.number} of {done.made}"
        Console(sys.stdout).line(told)
    else:
        _tell(done, style)


@click.command()
@store_options
@click.option(
    "--at", metavar="WHEN", help="A version, a time or a set number. Default: the previous set."
)
@click.option("--key", "keys", multiple=True, help="Only this key (repeatable).")
@_NOTE
@format_option
def rollback(
    *, where: StoreArguments, at: str | None, keys: tuple[str, ...], note: str, style: str
) -> None:
    """Make an earlier set or version current again. Nothing is deleted.

    \b
    Examples:
      state-bundler store rollback
      state-bundler store rollback --at 2026-05-01T00:00:00Z
      state-bundler store rollback --at 41 --key 'FivetranAccountComponent[acme]'
    """

    _tell(where.open().rollback(moment(at), keys, where.author(note)), style)


def _tell(current: Current, style: str) -> None:
    if style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StoreSet, current.change)
        return
    console = Console(sys.stdout)
    console.line(f"set {current.number} of {current.change.made}")
    for move in current.change.moves:
        console.line(f"  {safe(move.key)}: {move.before or 'none'} -> {move.after or 'none'}")


@click.command()
@store_options
@click.option("--remove", is_flag=True, help="Remove the pin.")
@_NOTE
@format_option
@click.argument("version")
def pin(*, where: StoreArguments, remove: bool, note: str, style: str, version: str) -> None:
    """Protect VERSION from pruning, and show every pin of the store."""
    store = where.open()
    pins = (store.unpin(version) if remove else store.pin(version, note)).pins
    if style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StorePins, store=store.url, pins=pins)
    elif pins:
        rows = [(pin.key, pin.version, pin.note or NOWHERE) for pin in pins]
        Console(sys.stdout).table(("KEY", "VERSION", "NOTE"), rows)
    else:
        Console(sys.stderr).line("No version is pinned.")


@click.command(short_help="Remove old, unreferenced versions.")
@store_options
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Number of versions to keep per key.",
)
@click.option(
    "--older-than", type=Duration(), help="Only remove versions older than this, such as 30d."
)
@click.option(
    "--referenced-by",
    "artifacts",
    multiple=True,
    metavar="ARTIFACT",
    help="Keep the versions this artifact references (repeatable).",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@format_option
def prune(
    *,
    where: StoreArguments,
    keep: int,
    older_than: float | None,
    artifacts: tuple[str, ...],
    dry_run: bool,
    style: str,
) -> None:
    """Remove all but the newest versions; never a current, pinned or referenced one.

    \b
    Example:
      state-bundler store prune --keep 10 --older-than 30d --referenced-by shop:1.4 --dry-run
    """
    from bundler.artifacts.open import open_artifact
    from bundler.store.prune import PruneRules, referenced_by
    from bundler.store.prune import prune as carry_out

    referenced: set[str] = set()
    for name in artifacts:
        with open_artifact(name) as artifact:
            referenced |= referenced_by(artifact)
    rules = PruneRules(keep, older_than or 0.0, frozenset(referenced))
    done = carry_out(where.open(), rules, dry_run=dry_run)
    if style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StorePrune, done, dry_run=dry_run)
        return
    console = Console(sys.stdout)
    if done.versions:
        rows = [(item.key, item.version, item.made) for item in done.versions]
        console.table(("KEY", "VERSION", "MADE"), sorted(rows))
    left = counted(len(done.leftovers), "leftover")
    told = f"{counted(len(done.versions), 'version')}, {size(done.size)} and {left}"
    console.line(f"{told} {'would be removed' if dry_run else 'removed'}")


@click.command(short_help="Copy the states to the store at URL.")
@store_options
@click.option("--history", is_flag=True, help="Also copy every earlier set.")
@_NOTE
@format_option
@click.argument("target", metavar="URL")
def copy(*, where: StoreArguments, history: bool, note: str, style: str, target: str) -> None:
    """Copy the states to the store at URL and make them current there.

    \b
    Example:
      state-bundler store copy s3://production/states --note 'tested in staging'
    """
    from bundler.store import copying, open_store

    other = open_store(target)
    done = copying.copy(where.open(), other, history=history, author=where.author(note))
    if style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StoreCopy, done, store=other.url)
        return
    Console(sys.stdout).line(
        f"{other.url}: set {done.number}, {len(done.versions)} new versions, {size(done.size)}"
    )


@click.command("import", short_help="Import states that Dagster has stored.")
@store_options
@click.option("--key", "keys", multiple=True, required=True, help="A key to import (repeatable).")
@click.option(
    "--latest",
    multiple=True,
    metavar="KEY=VERSION",
    help="The version to make current. Default: the newest.",
)
@format_option
@click.argument("source", metavar="URL")
def import_(
    *,
    where: StoreArguments,
    keys: tuple[str, ...],
    latest: tuple[str, ...],
    style: str,
    source: str,
) -> None:
    """Import the states that Dagster's UPathDefsStateStorage has stored at URL, its base path.

    \b
    Example:
      state-bundler store import s3://bucket/dagster --key 'FivetranAccountComponent[acme]'
    """
    from bundler.store import importing
    from bundler.store.open_objects import open_objects

    pairs = dict(item.rpartition("=")[::2] for item in latest)
    if "" in pairs:
        raise UsageError("--latest expects KEY=VERSION.")
    done = importing.import_dagster(
        open_objects(source), where.open(), keys, latest=pairs, author=where.author()
    )
    if style == "json":
        from bundler.cli.documents import print_document, stores

        found = [
            stores.ImportedKey(key=key, versions=list(it)) for key, it in done.versions.items()
        ]
        print_document(stores.StoreImport, keys=found, not_imported=done.unknown)
        return
    console = Console(sys.stdout)
    for key, versions in done.versions.items():
        console.line(f"{safe(key)}: {counted(len(versions), 'version')}, current {versions[-1]}")
    if done.unknown:
        Console(sys.stderr).line(
            f"warning: not imported because no --key names them: {', '.join(done.unknown)}"
        )


@click.command()
@store_options
@_NOTE
@format_option
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
def remove(*, where: StoreArguments, note: str, style: str, keys: tuple[str, ...]) -> None:
    """Remove keys from the current set. Their versions stay in the store until they are pruned."""

    store = where.open()
    store.currents(keys)  # an unknown key is an error
    _tell(store.remove(keys, where.author(note)), style)


COMMANDS = (push, join, rollback, remove, pin, prune, copy, import_)
