"""Options and output shared by the commands of ``state-bundler store``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.console import Console, size
from bundler.cli.options import Directory, Options, option
from bundler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.cli.documents import Pushed
    from bundler.store import Store
    from bundler.store.pointer import Author
    from bundler.store.pushing import PushedStates
    from bundler.store.records import Move, Shard

NOWHERE = "-"


class StoreArguments(Options):
    """The store, which an option, the environment or the project's configuration names."""

    url: str | None = option(
        "--store URL",
        "s3://, gs://, az:// or file://. Default: `store` in [tool.state-bundler].",
        envvar="STATE_BUNDLER_STORE",
    )
    root: Directory = option(
        "--project",
        "The project that configures the store. Default: the current directory.",
        default=Path(),
    )

    def address(self) -> str:
        """Its URL. Raises `ConfigurationError` if none is configured."""
        from bundler.store.configured import url_of

        return url_of(self.url, self.root)

    def open(self) -> Store:
        from bundler.store.configured import open_configured

        return open_configured(self.url, self.root)

    def author(self, note: str = "") -> Author:
        from bundler.store import local

        return local.author(self.root, note)


KEYS = option("--key", "Only this key (repeatable).")
NOTE = option("--note", "A note to store in the history.", default="")
RUN = option("--run", "An ID shared by all shards of one refresh. Default: the CI run's ID.")


def moment(text: str | None) -> str | None:
    """A version, a time or a set number, with or without the leading ``#``."""
    return None if text is None else text.removeprefix("#")


def run_of(run: str | None) -> str:
    """The run ID of the shards. Raises `UsageError` if it is unknown."""
    from bundler.store import local

    found = run or local.run_id()
    if not found:
        raise UsageError("The shards' run ID is unknown.", hint="Pass it: --run 2026-05-01")
    return found


def show_staged(store: Store, staged: Shard, run: str, style: str) -> None:
    join = store.command(f"join {staged.count} --run {shlex.quote(run)}")
    if style == "json":
        from bundler.cli.documents import ShardDocument, print_document

        print_document(ShardDocument, staged, run=run, shard=staged.index, join=join)
        return
    shard = f"Shard {staged.index}/{staged.count} of run {run}"
    new, unchanged = len(staged.versions), len(staged.unchanged)
    what = f"{new} new, {unchanged} unchanged" if new or unchanged else "no keys"
    click.echo(f"{shard}: {what}.")
    click.echo(f"When all {staged.count} are there, this makes them current: {join}")


def pushed_document(pushed: PushedStates, url: str) -> Pushed:
    from bundler.cli.documents import Pushed, PushedVersion

    versions = [
        PushedVersion(key=key, version=version, new=key not in pushed.unchanged)
        for key, version in sorted(pushed.versions.items())
    ]
    return Pushed.of(pushed, store=url, versions=versions)


def warn_of_displaced(store: Store, moves: Sequence[Move]) -> None:
    for message in store.displaced(moves):
        Console(sys.stderr).line(f"warning: {message}")


def show_pushed(pushed: PushedStates, store: Store, style: str = "text") -> None:
    warn_of_displaced(store, pushed.moves)
    url = store.url
    if style == "json":
        from bundler.cli.documents import print_document, stores

        print_document(stores.StorePush, pushed_document(pushed, url))
        return
    console = Console(sys.stdout)
    rows = [
        (key, version, "unchanged" if key in pushed.unchanged else "new")
        for key, version in sorted(pushed.versions.items())
    ]
    console.table(("KEY", "VERSION", ""), rows)
    console.line(f"{url}: set {pushed.number}, {size(pushed.uploaded)} uploaded")
