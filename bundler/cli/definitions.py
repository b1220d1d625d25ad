"""How changed definitions are shown: as text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bundler.cli.console import Console, safe_line
from bundler.system.wording import counted, listed

if TYPE_CHECKING:
    from bundler.cli.documents.changes import DiffDefinitions
    from bundler.state.definitions import (
        DefinitionChange,
        DefinitionsDifference,
        FieldChange,
    )

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_COLOURS = {"+": "green", "-": "red", "~": "yellow"}
_MOST_ITEMS = 5
_MOST_VALUE = 80


def conclusion(found: DefinitionsDifference) -> str:
    """All changes in a line: ``Definitions: 3 assets appear, 1 job vanishes, 7 unchanged.``"""
    verbs = {"added": ("appears", "appear"), "removed": ("vanishes", "vanish")}
    verbs["changed"] = ("changes", "change")
    parts = []
    for kind in found.kinds():
        for change, (one, many) in verbs.items():
            number = found.counted(kind, change)
            if number:
                verb = one if number == 1 else many
                parts.append(f"{counted(number, kind.removesuffix('s'))} {verb}")
    return f"Definitions: {', '.join([*parts, f'{found.unchanged} unchanged'])}."


def show(console: Console, found: DefinitionsDifference, most: int) -> None:
    """Prints the changes by kind, at most so many lines of each."""
    for kind in found.kinds():
        console.line(console.styled(kind, "bold"))
        show_lines(console, list(_lines_of(found, kind)), most)
    console.line(conclusion(found))


def show_lines(console: Console, lines: Sequence[str], most: int) -> None:
    """Prints lines that begin with a sign, in its colour."""
    for line in lines[:most]:
        colour = _COLOURS.get(line.lstrip()[:1], "dim")
        console.line(f"  {console.styled(line, colour)}")
    if len(lines) > most:
        console.line(f"  … and {len(lines) - most} more; --all-changes shows them")


def markdown(found: DefinitionsDifference, most: int) -> Iterator[str]:
    """The changes as Markdown, a folded block for each kind."""
    if not found.changes:
        yield f"**Definitions unchanged**: {found.unchanged} are the same."
        return
    for kind in found.kinds():
        yield from folded(f"{kind} ({_signed(found, kind)})", list(_lines_of(found, kind)), most)
    yield conclusion(found)


def folded(title: str, lines: Sequence[str], most: int) -> Iterator[str]:
    """Lines that begin with a sign, in Markdown below a title that unfolds them."""
    yield f"<details><summary>{title}</summary>"
    # A fence of four backticks, since the content may contain one of three.
    yield from ("", "````diff", *(line.replace("`", "'") for line in lines[:most]))
    if len(lines) > most:
        yield f"… and {len(lines) - most} more"
    yield from ("````", "", "</details>", "")


def _signed(found: DefinitionsDifference, kind: str) -> str:
    numbers = {sign: found.counted(kind, change) for change, sign in _SIGNS.items()}
    return ", ".join(f"{sign}{number}" for sign, number in numbers.items() if number)


def document(found: DefinitionsDifference) -> DiffDefinitions:
    from bundler.cli.documents.changes import DiffDefinitions

    return DiffDefinitions.of(found, differs=bool(found.changes))


def _lines_of(found: DefinitionsDifference, kind: str) -> Iterator[str]:
    for item in found.changes:
        if item.kind == kind:
            yield from map(safe_line, _lines(item))


def _lines(item: DefinitionChange) -> Iterator[str]:
    yield f"{_SIGNS[item.change]} {item.name}"
    for field in item.fields:
        yield f"    {field.name}: {_field(field)}"


def _field(field: FieldChange) -> str:
    if field.added or field.removed:
        signed = [*(f"+{item}" for item in field.added), *(f"-{item}" for item in field.removed)]
        return listed(signed, _MOST_ITEMS)
    from bundler.state.jsondiff import apart

    before, after = ("none" if it is None else str(it) for it in (field.before, field.after))
    return " -> ".join(apart(before, after, _MOST_VALUE))
