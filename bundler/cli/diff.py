"""``state-bundler diff``."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli import definitions as shown
from bundler.cli.console import Console, safe_line, size
from bundler.cli.options import (
    Directory,
    Options,
    flag,
    formats,
    narrator,
    option,
    takes,
)
from bundler.errors import ConfigurationError
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.artifacts.diff import Difference, FileDifference, KeyDifference
    from bundler.cli.documents import changes
    from bundler.listener import Listener
    from bundler.project.projects import Project
    from bundler.state.artifact import Artifact
    from bundler.state.definitions import DefinitionsDifference
    from bundler.state.jsondiff import JsonChange

_SIGNS = {"added": "+", "removed": "-", "renamed": "~", "changed": "~", "reordered": "~"}
MOST_LINES = 40
_WORDS = re.compile(r"(?:[\w +,>()-]|\.(?=\d))*")


class DiffArguments(Options):
    volatile: tuple[str, ...] = option("--volatile NAME", "A JSON member to ignore (repeatable).")
    everything: bool = flag("--all-changes", "Show every change, not only the first ones.")
    with_definitions: bool = flag(
        "--definitions", "Load both without network, and compare their assets, jobs and so on."
    )
    modules: tuple[str, ...] = option(
        "--load-module MODULE",
        "What --definitions loads. Default: the module that a code server loads.",
    )
    project: Directory | None = option(
        "--project",
        "The project to load states with that come without code. Default: the current directory.",
    )
    python: Path | None = option(
        "--python",
        "The interpreter that --definitions runs a PEX with.",
        envvar="STATE_BUNDLER_PYTHON",
    )
    style: str = formats("json", "markdown")


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.pass_context
@takes("given", DiffArguments)
def diff(ctx: click.Context, before: str, after: str, given: DiffArguments) -> None:
    """Show what changed between the states of A and B, key by key and inside JSON files.

    A and B are artifacts or directories. Exits with 1 if they differ, 0 otherwise. Changes to
    ignored (volatile) members are shown but do not count as a difference.

    \b
    Examples:
      state-bundler diff app-1.pex app-2.pex
      state-bundler diff shop:1.4 app.pex --format markdown
      state-bundler diff shop:1.4 shop:1.5 --definitions
    """
    from bundler.artifacts.diff import diff as compare
    from bundler.artifacts.open import open_artifact

    definitions: DefinitionsDifference | None = None
    listener = narrator()
    listener.working(f"Comparing {before} with {after}")
    with open_artifact(before) as one, open_artifact(after) as other:
        found = compare(one, other, given.volatile)
        if given.with_definitions:
            definitions = _definitions(one, other, given)
    listener.working("")
    most = sys.maxsize if given.everything else MOST_LINES
    if given.style == "json":
        _print_json(found, definitions)
    elif given.style == "markdown":
        click.echo("\n".join(as_markdown(found, most)))
        if definitions is not None:
            click.echo("\n".join(["", *shown.markdown(definitions, most)]))
    else:
        as_text(found, most)
        if definitions is not None:
            shown.show(Console(sys.stdout), definitions, most)
    ctx.exit(1 if found.differs or (definitions is not None and definitions.changes) else 0)


def _definitions(one: Artifact, other: Artifact, given: DiffArguments) -> DefinitionsDifference:
    from bundler.workflows.definitions import Loader

    listener = narrator()
    loader = Loader(_project(given, listener), given.python, given.modules, listener)
    return loader.difference(one, other)


def _project(given: DiffArguments, listener: Listener) -> Project | None:
    """The project that is named, or the one here if there is one."""
    from bundler.project.selection import Selection

    named = () if given.project is None else (given.project,)
    try:
        return Selection(named, python=given.python).find(listener)[0]
    except ConfigurationError:
        if given.project is not None:
            raise
        return None


def _print_json(found: Difference, definitions: DefinitionsDifference | None) -> None:
    from bundler.cli.documents import as_text, changes

    more = {} if definitions is None else {"definitions": shown.document(definitions)}
    click.echo(as_text(changes.Diff, found, keys=key_documents(found), **more), nl=False)


# --- text -----------------------------------------------------------------------------------


def as_text(found: Difference, most: int) -> None:
    """Prints the changes by key, at most so many lines of each."""
    console = Console(sys.stdout)
    for key in found.keys:
        console.line(f"{console.styled(safe_line(key.key), 'bold')}  {safe_line(_headline(key))}")
        shown.show_lines(console, [*map(safe_line, _lines(key))], most)
    console.line(_conclusion(found))


def _conclusion(found: Difference) -> str:
    kinds = [key.kind for key in found.keys]
    named = {"added": "added", "removed": "removed", "changed": "changed"}
    parts = [f"{kinds.count(kind)} {word}" for kind, word in named.items() if kind in kinds]
    if "volatile" in kinds:
        parts.append(f"{kinds.count('volatile')} with ignored changes only")
    parts.append(f"{found.unchanged} unchanged")
    return f"Keys: {', '.join(parts)}."


def _headline(key: KeyDifference) -> str:
    if key.kind in ("added", "removed"):
        amount = key.after if key.kind == "added" else key.before
        return f"{key.kind}, {_amount(amount)}"
    if isinstance(key.before, str):
        return f"{key.before} -> {key.after}"
    told = "only ignored members changed" if key.kind == "volatile" else key.summary
    sizes = _amount(key.after) if key.before == key.after else _sizes(key.before, key.after)
    return f"{told}, {sizes}" if told else f"changed, {sizes}"


def _sizes(before: int | str | None, after: int | str | None) -> str:
    one, other = _amount(before), _amount(after)
    return f"{one} -> {other}" if one != other else f"{before} -> {after} bytes"


def _amount(value: int | str | None) -> str:
    return size(value) if isinstance(value, int) else str(value)


def _lines(key: KeyDifference) -> Iterator[str]:
    several = len(key.files) > 1
    for file in key.files:
        indent = ""
        if several or not file.changes:
            yield _file_line(file)
            indent = "  "
        yield from _changes(file.changes, indent)


def _file_line(file: FileDifference) -> str:
    if file.kind in ("added", "removed"):
        return f"{_SIGNS[file.kind]} {file.path}"
    if file.form_only:
        return f"~ {file.path}: the same JSON, formatted differently"
    note = " (ignored)" if file.kind == "volatile" else ""
    sizes = "" if file.changes else f": {_sizes(file.before, file.after)}"
    return f"~ {file.path}{sizes}{note}"


def _changes(changes: Sequence[JsonChange], indent: str) -> Iterator[str]:
    # Significant changes first.
    for change in sorted(changes, key=lambda change: change.volatile):
        yield f"{indent}{_SIGNS[change.kind]} {_told(change)}"
        yield from _changes(change.details, f"{indent}    ")


def _told(change: JsonChange) -> str:
    note = " (ignored)" if change.volatile else ""
    what = f"{_singular(change.what)} " if change.what else ""
    if change.kind == "renamed":
        return f"{what}{change.before} is now {change.after}{note}"
    if change.kind == "reordered":
        return f"{change.name}: order changed{note}"
    if change.kind == "changed" and change.details:
        return f"{what}{change.name}{note}"
    values = {"added": change.after, "removed": change.before}.get(
        change.kind, f"{change.before} -> {change.after}"
    )
    return f"{what}{change.name}{f': {values}' if values is not None else ''}{note}"


def _singular(what: str) -> str:
    return f"{what[:-3]}y" if what.endswith("ies") else what.removesuffix("s")


# --- Markdown -------------------------------------------------------------------------------


def as_markdown(found: Difference, most: int) -> Iterator[str]:
    if not found.keys:
        yield f"**State unchanged**: {counted(found.unchanged, 'key is', 'keys are')} unchanged."
        return
    yield "| key | change |"
    yield "|---|---|"
    for key in found.keys:
        yield f"| {_in_cell(as_code(key.key))} | {_in_cell(_shown(_headline(key)))} |"
    yield ""
    for key in found.keys:
        if lines := [*map(safe_line, _lines(key))]:
            title = f"<code>{html.escape(safe_line(key.key), quote=False)}</code>"
            yield from shown.folded(title, lines, most)
    yield _conclusion(found)


def as_code(text: str) -> str:
    """Text as code, in which neither HTML, links, images nor mentions have a meaning."""
    return f"`{safe_line(text).replace('`', chr(39))}`"


def _shown(headline: str) -> str:
    """As code if it contains more than words: the names in it come from the external system."""
    return headline if _WORDS.fullmatch(headline) else as_code(headline)


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- JSON -----------------------------------------------------------------------------------


def key_documents(found: Difference) -> list[changes.DiffKey]:
    from bundler.cli.documents import changes

    return [changes.DiffKey.of(key, summary=key.summary or None) for key in found.keys]
