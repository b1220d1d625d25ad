"""The commands of ``state-bundler store`` that change the store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from bundler.cli.console import Console, safe, size
from bundler.cli.options import flag, formats, option, takes
from bundler.cli.store_options import (
    KEYS,
    NOTE,
    NOWHERE,
    RUN,
    StoreArguments,
    moment,
    run_of,
    show_pushed,
    show_staged,
    warn_of_displaced,
)
from bundler.errors import UsageError
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.store import Store
    from bundler.store.records import Current


class PushArguments(StoreArguments):
    keys: tuple[str, ...] = KEYS
    shard: str | None = option("--shard N/COUNT", "Push one shard; `store join` completes it.")
    run: str | None = RUN
    note: str = NOTE
    style: str = formats("json")


@click.command(short_help="Push published states and make them current.")
@takes("given", PushArguments)
@click.argument("artifact", required=False)
def push(given: PushArguments, artifact: str | None) -> None:
    """Push the published states of the project, or of ARTIFACT, and make them current.

    All become current atomically. A version equivalent to the current one is not uploaded.

    \b
    Examples:
      state-bundler store push
      state-bundler store push app.pex --note 'as shipped in 1.4'
      state-bundler store push --shard 3/10
    """
    from bundler.workflows.store_changes import states_of

    with states_of(given.root, artifact, given.keys) as states:
        store, author = given.open(), given.author(given.note)
        if given.shard is not None:
            from bundler.store import shards

            number, name = shards.parse_shard(given.shard), run_of(given.run)
            staged = shards.stage(store, states, name, number, author)
            show_staged(store, staged, name, given.style)
        else:
            show_pushed(store.push(states, author), store, given.style)


class JoinArguments(StoreArguments):
    run: str | None = RUN
    note: str = NOTE
    style: str = formats("json")


@click.command(short_help="Make the states of all shards current, atomically.")
@takes("given", JoinArguments)
@click.argument("count", type=click.IntRange(1))
def join(given: JoinArguments, count: int) -> None:
    """Make the states of all COUNT shards current atomically; fails if a shard is missing.

    Succeeds if the run was already joined, so that a job can be retried.

    \b
    Example:
      state-bundler store join 10 --run "$GITHUB_RUN_ID"
    """
    from bundler.store import shards
    from bundler.store.records import Joined

    name, store = run_of(given.run), given.open()
    before = store.current()
    done = shards.join(store, name, count, given.author(given.note))
    if isinstance(done, Joined) and given.style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StoreSet, done, moves=[])
    elif isinstance(done, Joined):
        told = f"Run {safe(name)} was already joined: set {done.number} of {done.made}"
        Console(sys.stdout).line(told)
    else:
        _show_set(store, done, before, given.style)


class RollbackArguments(StoreArguments):
    at: str | None = option(
        "--at WHEN", "A version, a time or a set number. Default: the previous set."
    )
    keys: tuple[str, ...] = KEYS
    note: str = NOTE
    style: str = formats("json")


@click.command()
@takes("given", RollbackArguments)
def rollback(given: RollbackArguments) -> None:
    """Make an earlier set or version current again. Nothing is deleted.

    \b
    Examples:
      state-bundler store rollback
      state-bundler store rollback --at 2026-05-01T00:00:00Z
      state-bundler store rollback --at 41 --key 'FivetranAccountComponent[acme]'
    """
    store, author = given.open(), given.author(given.note)
    before = store.require_current()
    _show_set(store, store.rollback(moment(given.at), given.keys, author), before, given.style)


def _show_set(store: Store, current: Current, before: Current | None, style: str) -> None:
    """Shows the set that a command made; without moves if it is the one before."""
    moves = () if before and before.number == current.number else current.change.moves
    warn_of_displaced(store, moves)
    if style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StoreSet, current.change, moves=moves)
        return
    console = Console(sys.stdout)
    console.line(f"set {current.number} of {current.change.made}{'' if moves else ', unchanged'}")
    for move in moves:
        console.line(f"  {safe(move.key)}: {move.before or 'none'} -> {move.after or 'none'}")


class PinArguments(StoreArguments):
    remove: bool = flag("--remove", "Remove the pin.")
    note: str = NOTE
    style: str = formats("json")


@click.command()
@takes("given", PinArguments)
@click.argument("version")
def pin(given: PinArguments, version: str) -> None:
    """Protect VERSION from pruning, and show every pin of the store."""
    store = given.open()
    pins = (store.unpin(version) if given.remove else store.pin(version, given.note)).pins
    if given.style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StorePins, store=store.url, pins=pins)
    elif pins:
        rows = [(pin.key, pin.version, pin.note or NOWHERE) for pin in pins]
        Console(sys.stdout).table(("KEY", "VERSION", "NOTE"), rows)
    else:
        Console(sys.stderr).line("No version is pinned.")


class PruneArguments(StoreArguments):
    keep: int = option(
        "--keep", "Number of versions to keep per key.", default=10, show_default=True
    )
    older_than: float | None = option(
        "--older-than", "Only remove versions older than this, such as 30d."
    )
    artifacts: tuple[str, ...] = option(
        "--referenced-by ARTIFACT", "Keep the versions this artifact references (repeatable)."
    )
    dry_run: bool = flag("--dry-run", "Only show what would be removed.")
    style: str = formats("json")


@click.command(short_help="Remove old, unreferenced versions.")
@takes("given", PruneArguments)
def prune(given: PruneArguments) -> None:
    """Remove all but the newest versions; never a current, pinned or referenced one.

    \b
    Example:
      state-bundler store prune --keep 10 --older-than 30d --referenced-by shop:1.4 --dry-run
    """
    from bundler.workflows.store_changes import prune as prune_store

    done = prune_store(
        given.open(),
        given.artifacts,
        keep=given.keep,
        older_than=given.older_than or 0.0,
        dry_run=given.dry_run,
    )
    if given.style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StorePrune, done, dry_run=given.dry_run)
        return
    console = Console(sys.stdout)
    if done.versions:
        rows = [(item.key, item.version, item.made) for item in done.versions]
        console.table(("KEY", "VERSION", "MADE"), sorted(rows))
    left = counted(len(done.leftovers), "leftover")
    told = f"{counted(len(done.versions), 'version')}, {size(done.size)} and {left}"
    console.line(f"{told} {'would be removed' if given.dry_run else 'removed'}")


class CopyArguments(StoreArguments):
    history: bool = flag("--history", "Also copy every earlier set.")
    note: str = NOTE
    style: str = formats("json")


@click.command(short_help="Copy the states to the store at URL.")
@takes("given", CopyArguments)
@click.argument("target", metavar="URL")
def copy(given: CopyArguments, target: str) -> None:
    """Copy the states to the store at URL and make them current there.

    \b
    Example:
      state-bundler store copy s3://production/states --note 'tested in staging'
    """
    from bundler.store import copying, open_store

    other = open_store(target)
    author = given.author(given.note)
    done = copying.copy(given.open(), other, history=given.history, author=author)
    warn_of_displaced(other, done.moves)
    if given.style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StoreCopy, done, store=other.url)
        return
    Console(sys.stdout).line(
        f"{other.url}: set {done.number}, {len(done.versions)} new versions, {size(done.size)}"
    )


class ImportArguments(StoreArguments):
    keys: tuple[str, ...] = option("--key", "A key to import (repeatable).", required=True)
    latest: tuple[str, ...] = option(
        "--latest KEY=VERSION", "The version to make current. Default: the newest."
    )
    style: str = formats("json")


@click.command("import", short_help="Import states that Dagster has stored.")
@takes("given", ImportArguments)
@click.argument("source", metavar="URL")
def import_(given: ImportArguments, source: str) -> None:
    """Import the states that Dagster's UPathDefsStateStorage has stored at URL, its base path.

    \b
    Example:
      state-bundler store import s3://bucket/dagster --key 'FivetranAccountComponent[acme]'
    """
    from bundler.store import importing
    from bundler.store.store import open_objects

    pairs = dict(item.rpartition("=")[::2] for item in given.latest)
    if "" in pairs:
        raise UsageError("--latest expects KEY=VERSION.")
    target, author = given.open(), given.author()
    done = importing.import_dagster(
        open_objects(source), target, given.keys, latest=pairs, author=author
    )
    if given.style == "json":
        from bundler.cli.documents import print_document, stores

        found = [
            stores.ImportedKey(key=key, versions=list(it)) for key, it in done.versions.items()
        ]
        print_document(stores.StoreImport, keys=found, not_imported=done.unknown)
        return
    console = Console(sys.stdout)
    for key, current in target.current_ids(done.versions).items():
        count = counted(len(done.versions[key]), "version")
        console.line(f"{safe(key)}: {count}, current {current}")
    if done.unknown:
        Console(sys.stderr).line(
            f"warning: not imported because no --key names them: {', '.join(done.unknown)}"
        )


class RemoveArguments(StoreArguments):
    note: str = NOTE
    style: str = formats("json")


@click.command()
@takes("given", RemoveArguments)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
def remove(given: RemoveArguments, keys: tuple[str, ...]) -> None:
    """Remove keys from the current set. Their versions stay in the store until they are pruned."""
    store = given.open()
    before = store.require_current()
    store.current_ids(keys)  # an unknown key is an error
    _show_set(store, store.remove(keys, given.author(given.note)), before, given.style)


COMMANDS = (push, join, rollback, remove, pin, prune, copy, import_)
