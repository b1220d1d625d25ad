"""``state-bundler store``: versioned state storage. This module has the read-only commands."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli import store_changes
from bundler.cli.console import Console, age, size
from bundler.cli.diff import diff
from bundler.cli.extract import show_extracted
from bundler.cli.options import format_option
from bundler.cli.store_options import NOWHERE, SHOWN, StoreArguments, store_options
from bundler.errors import UsageError, VerificationFailed
from bundler.system.wording import counted, nearest

if TYPE_CHECKING:
    from bundler.store import Store
    from bundler.store.records import Change, Current, Version

_MOST_SETS = 30


@click.group()
def store() -> None:
    """Store every version of every state in a bucket or folder."""


for _change in store_changes.COMMANDS:
    store.add_command(_change)


@store.command("list", short_help="Show the current version of each key.")
@store_options
@click.option("--key", "keys", multiple=True, help="Only this key (repeatable).")
@click.option("--all-versions", "everything", is_flag=True, help="Show every version.")
@click.option("--sets", is_flag=True, help="Show the history, newest first.")
@click.option(
    "-n", "most", type=click.IntRange(1), default=_MOST_SETS, help="Maximum number of sets.  [30]"
)
@format_option
def list_(
    *,
    where: StoreArguments,
    keys: tuple[str, ...],
    everything: bool,
    sets: bool,
    most: int,
    style: str,
) -> None:
    """Show the current version of each key: age, size, author and commit.

    \b
    Examples:
      state-bundler store list
      state-bundler store list --all-versions --key 'FivetranAccountComponent[acme]'
      state-bundler store list --sets
    """
    found = where.open()
    current = found.current()
    if current is None:
        click.echo(f"{found.url} is empty.", err=True)
        if style == "json":
            from bundler.cli.documents import print_document, stores

            kind = stores.StoreSets if sets else stores.StoreList
            print_document(kind, store=found.url, **{"sets" if sets else "keys": []})
        return
    if sets:
        _show_sets(list(islice(found.history(), most)), found, style)
    else:
        versions = [
            version
            for version in _versions(found, current, everything=everything)
            if not keys or version.key in keys
        ]
        _show_versions(versions, current, found, style)


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
            (version.commit or NOWHERE)[:SHOWN],
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
            (change.commit or NOWHERE)[:SHOWN],
            _told(change),
        )
        for change in changes
    ]
    Console(sys.stdout).table(("SET", "TIME", "WHAT", "BY", "COMMIT", "KEYS"), rows, "SET")


def _told(change: Change, most: int = 3) -> str:
    keys = [move.key if move.after else f"-{move.key}" for move in change.moves]
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    note = f" ({change.note})" if change.note else ""
    return ", ".join(keys[:most]) + more + note


@store.command()
@store_options
@format_option
@click.argument("name", metavar="VERSION|KEY")
def show(*, where: StoreArguments, name: str, style: str) -> None:
    """Show one version and the files in it."""
    from bundler.store import records

    found = where.open()
    version = found.version(name) if records.is_version(name) else found.currents([name])[name]
    if style == "json":
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
    rows = [(file.path, size(file.size), file.sha256[:SHOWN]) for file in version.state.files]
    console.table(("FILE", "SIZE", "SHA256"), rows, "SIZE")


@store.command("diff", short_help="Show what changed from A to B.")
@store_options
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
)
@click.argument("before", metavar="A")
@click.argument("after", metavar="[B]", required=False)
@click.pass_context
def diff_(
    ctx: click.Context, *, where: StoreArguments, before: str, after: str | None, style: str
) -> None:
    """Show what changed from A to B: versions, set numbers or times. B defaults to the current set.

    \b
    Examples:
      state-bundler store diff 41
      state-bundler store diff 2026-05-01T00:00:00Z 2026-06-01T00:00:00Z
    """
    url = where.address()
    names = [f"store:{url}{f'@{item}' if item else ''}" for item in (before, after)]
    ctx.invoke(diff, before=names[0], after=names[1], volatile=(), everything=False, style=style)


@store.command()
@store_options
@click.option("--current", "only_current", is_flag=True, help="Check only the current versions.")
@format_option
def verify(*, where: StoreArguments, only_current: bool, style: str) -> None:
    """Read every stored byte and report damage. Exits with 76 if anything is damaged."""
    from bundler.store import checking

    found = where.open()
    checked = checking.check(found, everything=not only_current)
    if style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StoreVerify, checked, store=found.url)
    elif not checked.problems:
        console = Console(sys.stdout)
        tick = console.styled(console.sign("✓", "ok"), "green", "bold")
        console.line(
            f"{tick} {found.url}: {counted(checked.versions, 'version')}, {size(checked.size)}"
        )
    if checked.problems:
        error = VerificationFailed(
            f"{found.url} is damaged: {' '.join(checked.problems)}",
            hint=f"Roll back to an intact version: {found.command('rollback')}",
        )
        if len(checked.problems) > 1:
            error.headline = f"{found.url} is damaged: {len(checked.problems)} problems."
            error.details = (("damage", tuple(checked.problems)),)
        raise error


@store.command()
@store_options
@click.option("--key", "keys", multiple=True, help="Only this key (repeatable).")
@click.option("--at", metavar="WHEN", help="A version, a set number or a time.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A new or empty directory.",
)
@format_option
def pull(
    *, where: StoreArguments, keys: tuple[str, ...], at: str | None, output: Path, style: str
) -> None:
    """Download and verify states from the store into a directory.

    \b
    Examples:
      state-bundler store pull -o states
      state-bundler store pull -o states --at 2026-05-01T00:00:00Z
    """
    from bundler.artifacts.extract import extract
    from bundler.artifacts.stored import StoredStates, versions_at

    found = where.open()
    versions = versions_at(found, (at or "").removeprefix("#"))
    for key in keys:
        if key not in versions:
            near = nearest(key, versions)
            hint = f"Did you mean {near!r}?" if near else ""
            what = f"{found.url} has no version of {key} at that point."
            raise UsageError(what, hint=hint, key=key)
    wanted = {key: versions[key] for key in (keys or versions)}
    show_extracted(extract(StoredStates(found.url, found, wanted), output), style)
