"""``state-bundler status``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli import completion
from bundler.cli.console import Console, age, short, size
from bundler.cli.options import (
    NO_CACHE,
    Directory,
    File,
    Options,
    flag,
    formats,
    narrator,
    option,
    takes,
)
from bundler.cli.outcome import raise_failures
from bundler.cli.verify import PolicyArguments
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.cli import documents
    from bundler.workflows.status import Demands, Holder, KeyStatus

_NOWHERE = "-"
_FROM_STDIN = "-"
_CLEAR = "\x1b[H\x1b[2J"
_WATCH_SECONDS = 5.0

Look = Callable[[], "Sequence[Holder]"]


class StatusArguments(Options):
    directories: tuple[Directory, ...] = option(
        "--project", "A project's directory. Default: the current directory or its workspace."
    )
    python: Path | None = option("--python", "The project's interpreter.")
    baseline: str | None = option("--baseline ARTIFACT", "Compare with this artifact.")
    demands: PolicyArguments
    no_cache: bool = NO_CACHE
    watch: bool = flag("--watch", "Refresh the output until Ctrl-C.")
    html: File | None = option("--html", "Write a self-contained HTML page instead.")
    style: str = formats("json")


@click.command()
@click.argument(
    "artifacts", shell_complete=completion.artifacts, nargs=-1, metavar="[ARTIFACT... | -]"
)
@takes("given", StatusArguments)
def status(artifacts: tuple[str, ...], given: StatusArguments) -> None:
    """Show every key of a project or of each ARTIFACT: age, size, digest, management type.

    With -, reads the names of artifacts from stdin, one per line. For a project, also shows which
    components use each key. Options such as --max-age check each ARTIFACT as `verify` does; the
    exit code is 1 if one violates the policy.

    \b
    Examples:
      state-bundler status
      state-bundler status app.pex oci:build/image --baseline app-old.pex
      state-bundler status --html report.html
      state-bundler status shop:1 shop:2 --max-age 24h --clean --html fleet.html
      docker image ls --format '{{.Repository}}:{{.Tag}}' shop | state-bundler status -
    """
    names = _names(artifacts)
    if given.watch and (given.html or given.style == "json"):
        raise click.UsageError("--watch requires a terminal and text output.")
    asked = _demands(given)
    if asked.of_bytes and not names:
        raise click.UsageError("A policy needs an ARTIFACT to check.")
    look = _look(names, given, asked)
    if given.watch:
        _watch(look)
        return
    holders = look()
    if given.html is not None:
        _as_page(holders, given.html)
    elif given.style == "json":
        _print_json(holders)
    else:
        _as_text(holders)
    raise_failures([(holder.name, holder.failure) for holder in holders])


def _names(artifacts: tuple[str, ...]) -> list[str]:
    if _FROM_STDIN not in artifacts:
        return list(artifacts)
    if len(artifacts) > 1:
        raise click.UsageError("- reads all names from stdin and cannot be combined with others.")
    names = [line.strip() for line in sys.stdin if line.strip()]
    if not names:
        raise click.UsageError("No artifact names on stdin.")
    return list(dict.fromkeys(names))


def _demands(given: StatusArguments) -> Demands:
    from bundler.workflows.policy import Policy
    from bundler.workflows.status import Demands

    policy = given.demands.policy()
    asked = None if policy == Policy() else policy
    return Demands(asked, given.demands.signed_by, history=given.html is not None)


def _look(names: Sequence[str], given: StatusArguments, demands: Demands) -> Look:
    """What to do for an output, again and again with ``--watch``."""
    from bundler.workflows.status import of_names, of_projects

    listener = narrator()
    if not names:
        return of_projects(
            given.directories,
            listener,
            python=given.python,
            baseline=given.baseline,
            is_cached=not given.no_cache,
        )

    def look() -> list[Holder]:
        listener.working(f"Reading {counted(len(names), 'artifact')}")
        found = list(of_names(names, given.baseline, demands))
        listener.working("")
        return found

    return look


def _watch(look: Look) -> None:
    console = Console(sys.stdout)
    try:
        while True:
            holders = look()
            if sys.stdout.isatty():
                click.echo(_CLEAR, nl=False)
            _as_text(holders)
            console.line(console.styled(f"\n{time.strftime('%X')}; press Ctrl-C to stop.", "dim"))
            time.sleep(_WATCH_SECONDS)
    except KeyboardInterrupt:
        return


def _as_page(holders: Sequence[Holder], target: Path) -> None:
    from bundler.cli.page import page
    from bundler.system.atomic import io_errors, save

    with io_errors(target):
        save(target, page(holders, time.time()).encode())
    click.echo(f"Wrote {target}.", err=True)


# --- text -----------------------------------------------------------------------------------


def _as_text(holders: Sequence[Holder]) -> None:
    console = Console(sys.stdout)
    for holder in holders:
        if holder.failure is not None and not holder.keys:
            continue
        console.line(console.styled(holder.name, "bold"))
        _table(console, holder)
        for key in holder.keys:
            if key.problem:
                console.line(f"  {console.sign('✗', 'x')} {key.problem}")
        for breach in holder.breaches:
            console.line(f"  {console.sign('✗', 'x')} {breach.rule}: {breach.what}")
        for change in holder.since.keys if holder.since else ():
            if change.kind == "removed":
                console.line(f"  {change.key} was removed.")
    if len(holders) > 1:
        console.line(_sum(holders))


def _table(console: Console, holder: Holder) -> None:
    """A row per key; columns without values are omitted."""
    headers = ["KEY", "TYPE", "FETCHED", "CONFIRMED", "SIZE", "DIGEST"]
    rows = [_row(key, console.sign("✗", "x")) for key in holder.keys]
    if holder.since is not None:
        headers.append("SINCE BASELINE")
        for row, key in zip(rows, holder.keys, strict=True):
            change = holder.since.of(key.key, key.directory)
            row.append("unchanged" if change is None else change.summary or change.kind)
    if any(key.users for key in holder.keys):
        headers.append("USED BY")
        for row, key in zip(rows, holder.keys, strict=True):
            row.append(", ".join(key.users))
    console.table(headers, rows, "SIZE")


def _row(key: KeyStatus, cross: str) -> list[str]:
    from bundler.workflows.status import TYPES

    refresh = key.refresh
    return [
        f"{cross} {key.key}" if key.problem else key.key,
        TYPES[key.management_type],
        age(refresh.fetched if refresh else None),
        age(refresh.confirmed if refresh else None) + (" stale" * key.is_stale),
        _NOWHERE if key.size is None else size(key.size),
        short(key.digest or key.version or _NOWHERE),
    ]


def _sum(holders: Sequence[Holder]) -> str:
    keys = sum(len(holder.keys) for holder in holders)
    contents = {tuple(sorted(holder.contents.values())) for holder in holders if holder.contents}
    total = size(sum(holder.size for holder in holders))
    same = ", identical content" if contents else ""
    same = f", {len(contents)} different contents" if len(contents) > 1 else same
    return f"{len(holders)} in total: {counted(keys, 'key')}, {total}{same}."


# --- JSON -----------------------------------------------------------------------------------


def _print_json(holders: Sequence[Holder]) -> None:
    from bundler.cli.documents import Status, print_document

    print_document(Status, artifacts=[_document(holder) for holder in holders])


def _document(holder: Holder) -> documents.StatusArtifact:
    import msgspec

    from bundler.cli import documents

    since = None
    if holder.since is not None:
        keys = holder.since.keys
        changes = [documents.KeyChange.of(key, summary=key.summary or None) for key in keys]
        since = documents.Since.of(holder.since, keys=changes)
    optional = {"error": holder.failure, "since": since, "breaches": holder.breaches}
    return documents.StatusArtifact.of(
        holder,
        content_digests=holder.contents or {},
        keys=[documents.StatusKey.of(key, problem=key.problem or None) for key in holder.keys],
        **{name: value or msgspec.UNSET for name, value in optional.items()},
    )
