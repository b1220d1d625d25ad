"""``state-bundler store``: versioned state storage. This module has the read-only commands."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING

import click

from bundler.cli import store_changes
from bundler.cli.console import Console, age, short, size
from bundler.cli.diff import diff
from bundler.cli.extract import show_extracted
from bundler.cli.options import NewDirectory, flag, formats, option, takes
from bundler.cli.store_options import KEYS, NOWHERE, StoreArguments, moment
from bundler.errors import Interrupted, UsageError, VerificationFailed, signal_of
from bundler.system.wording import counted, listed, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from bundler.store import Store
    from bundler.store.records import Change, Current, Version

_MOST_SETS = 30
_MOST_KEYS = 3


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, SystemExit) as error:
            if number := signal_of(error):
                # A copy makes several sets; of a single one, the answer may not have arrived.
                done = "every set in the store is complete; list them with `store list --sets`"
                raise Interrupted(number, done) from error
            raise


@click.group(cls=_Group)
def store() -> None:
    """Store every version of every state in a bucket or folder."""


for _change in store_changes.COMMANDS:
    store.add_command(_change)


class ListArguments(StoreArguments):
    keys: tuple[str, ...] = KEYS
    everything: bool = flag("--all-versions", "Show every version.")
    sets: bool = flag("--sets", "Show the history, newest first.")
    most: int = option("-n", "Maximum number of sets.  [30]", default=_MOST_SETS)
    style: str = formats("json")


@store.command("list", short_help="Show the current version of each key.")
@takes("given", ListArguments)
def list_(given: ListArguments) -> None:
    """Show the current version of each key: age, size, author and commit.

    \b
    Examples:
      state-bundler store list
      state-bundler store list --all-versions --key 'FivetranAccountComponent[acme]'
      state-bundler store list --sets
    """
    found = given.open()
    current = found.current()
    if current is None:
        click.echo(f"{found.url} is empty.", err=True)
        if given.style == "json":
            from bundler.cli.documents import print_document, stores

            kind = stores.StoreSets if given.sets else stores.StoreList
            print_document(kind, store=found.url, **{"sets" if given.sets else "keys": []})
        return
    if given.sets:
        _show_sets(list(islice(found.history(), given.most)), found, given.style)
    else:
        versions = _versions(found, current, everything=given.everything)
        known = {version.key for version in versions}
        _require(given.keys, known, f"{found.url} has no version of")
        shown = [each for each in versions if not given.keys or each.key in given.keys]
        _show_versions(shown, current, found, given.style)
        # What was lost is in no row: an error, after what is left.
        found.all_of({key: entry.version for key, entry in current.keys.items()})


def _require(keys: Iterable[str], known: Collection[str], problem: str) -> None:
    """Raises `UsageError` for a key that is not known."""
    for key in keys:
        if key not in known:
            near = nearest(key, known)
            hint = f"Did you mean {near!r}?" if near else f"Known: {listed(sorted(known), 10)}."
            raise UsageError(f"{problem} {key}.", hint=hint, key=key)


def _versions(store: Store, current: Current, *, everything: bool) -> list[Version]:
    if everything:
        return store.kept()
    from bundler.store.store import by_key

    return by_key(store.known.find_all(entry.version for entry in current.keys.values()).values())


def _show_versions(versions: list[Version], current: Current, store: Store, style: str) -> None:
    pins = {pin.version: pin.note or "pinned" for pin in current.pins}
    live = {entry.version: entry for entry in current.keys.values()}
    if style == "json":
        from bundler.cli.documents import print_document, stores

        rows = [
            stores.StoreVersion.of(
                version,
                size=version.state.size,
                dir_hash=version.state.digest.dir_hash,
                current=version.version in live,
                confirmed=live[version.version].confirmed if version.version in live else None,
                pin=pins.get(version.version),
            )
            for version in versions
        ]
        print_document(stores.StoreList, store=store.url, set=current.number, keys=rows)
        return
    console = Console(sys.stdout)
    console.line(f"{store.url}, set {current.number} of {current.change.made}")
    rows_shown = [
        (
            version.key,
            version.version,
            "current" if version.version in live else "",
            age(version.made),
            size(version.state.size),
            version.by or NOWHERE,
            short(version.commit or NOWHERE),
            pins.get(version.version, ""),
        )
        for version in versions
    ]
    headers = ("KEY", "VERSION", "", "AGE", "SIZE", "BY", "COMMIT", "PIN")
    console.table(headers, rows_shown, "AGE SIZE")


def _show_sets(changes: list[Change], store: Store, style: str) -> None:
    if style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StoreSets, store=store.url, sets=changes)
        return
    rows = [
        (
            str(change.number),
            change.made,
            change.action,
            change.by or NOWHERE,
            short(change.commit or NOWHERE),
            _told(change),
        )
        for change in changes
    ]
    Console(sys.stdout).table(("SET", "TIME", "WHAT", "BY", "COMMIT", "KEYS"), rows, "SET")


def _told(change: Change) -> str:
    keys = [move.key if move.after else f"-{move.key}" for move in change.moves]
    return listed(keys, _MOST_KEYS) + (f" ({change.note})" if change.note else "")


class ShowArguments(StoreArguments):
    style: str = formats("json")


@store.command()
@takes("given", ShowArguments)
@click.argument("name", metavar="VERSION|KEY")
def show(given: ShowArguments, name: str) -> None:
    """Show one version and the files in it."""
    from bundler.store import records

    found = given.open()
    version = found.version(name) if records.is_version(name) else found.currents([name])[name]
    if given.style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StoreShow, version)
        return
    console = Console(sys.stdout)
    console.line(console.styled(f"{version.key}  {version.version}", "bold"))
    console.line(
        f"made {version.made} by {version.by or NOWHERE}, commit {version.commit or NOWHERE}"
    )
    if version.refresh is not None:
        told = version.refresh
        console.line(f"fetched {told.fetched or NOWHERE}, confirmed {told.confirmed or NOWHERE}")
    console.line(f"{size(version.state.size)}, dirHash {version.state.digest.dir_hash}")
    rows = [(file.path, size(file.size), short(file.sha256)) for file in version.state.files]
    console.table(("FILE", "SIZE", "SHA256"), rows, "SIZE")


class StoreDiffArguments(StoreArguments):
    style: str = formats("json", "markdown")


@store.command("diff", short_help="Show what changed from A to B.")
@takes("given", StoreDiffArguments)
@click.argument("before", metavar="A")
@click.argument("after", metavar="[B]", required=False)
@click.pass_context
def diff_(ctx: click.Context, *, given: StoreDiffArguments, before: str, after: str | None) -> None:
    """Show what changed from A to B: versions, set numbers or times. B defaults to the current set.

    \b
    Examples:
      state-bundler store diff 41
      state-bundler store diff 2026-05-01T00:00:00Z 2026-06-01T00:00:00Z
    """
    url = given.address()
    names = [f"store:{url}{f'@{item}' if item else ''}" for item in (before, after)]
    ctx.invoke(
        diff, before=names[0], after=names[1], volatile=(), everything=False, style=given.style
    )


class StoreVerifyArguments(StoreArguments):
    only_current: bool = flag("--current", "Check only the current versions.")
    style: str = formats("json")


@store.command()
@takes("given", StoreVerifyArguments)
def verify(given: StoreVerifyArguments) -> None:
    """Read every stored byte and report damage. Exits with 76 if anything is damaged."""
    from bundler.store import checking

    found = given.open()
    checked = checking.check(found, everything=not given.only_current)
    if given.style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StoreVerify, checked, store=found.url)
    elif not checked.problems:
        console = Console(sys.stdout)
        versions = counted(checked.versions, "version")
        console.line(f"{console.tick()} {found.url}: {versions}, {size(checked.size)}")
    if checked.problems:
        error = VerificationFailed(
            f"{found.url} is damaged: {' '.join(checked.problems)}",
            hint=f"Roll back to an intact version: {found.command('rollback')}\n"
            f"Or remove the key, then push it again: {found.command('remove KEY')}",
        )
        if len(checked.problems) > 1:
            error.headline = f"{found.url} is damaged: {len(checked.problems)} problems."
            error.details = (("damage", tuple(checked.problems)),)
        raise error


class PullArguments(StoreArguments):
    keys: tuple[str, ...] = KEYS
    at: str | None = option("--at WHEN", "A version, a set number or a time.")
    output: NewDirectory = option("-o, --output", "A new or empty directory.", required=True)
    style: str = formats("json")


@store.command()
@takes("given", PullArguments)
def pull(given: PullArguments) -> None:
    """Download and verify states from the store into a directory.

    \b
    Examples:
      state-bundler store pull -o states
      state-bundler store pull -o states --at 2026-05-01T00:00:00Z
    """
    from bundler.artifacts.extract import extract
    from bundler.artifacts.stored import StoredStates, versions_at

    found = given.open()
    versions = versions_at(found, moment(given.at))
    when = f"at {given.at} " if given.at else ""
    _require(given.keys, versions, f"{found.url} {when}has no version of")
    wanted = {key: versions[key] for key in (given.keys or versions)}
    show_extracted(extract(StoredStates(found.url, found, wanted), given.output), given.style)
