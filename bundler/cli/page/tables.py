"""Tables that sort, filter, and become cards on a narrow screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bundler.cli.page.markup import Html, filled, text
from bundler.cli.page.values import age, ago
from bundler.system.wording import size

NO_VALUE = -1.0
_TABLE = (
    '<div class="scroll"><table class="{}"><thead><tr>{}</tr></thead>'
    "<tbody>{}</tbody></table></div>"
)
_CELL = '<td data-label="{}" data-order="{}" class="{}"><span class="value">{}</span>{}</td>'
_BAR = (
    '<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
    '<rect width="100" height="4" rx="2" class="ground"></rect>'
    '<rect width="{}" height="4" rx="2"></rect></svg>'
)


class Cell(NamedTuple):
    """A table cell. order: its sort key. share: relative to the column's largest value,
    for the bar below it; None for no bar."""

    content: Html
    order: str | float
    share: float | None = None
    kind: str = ""


class Row(NamedTuple):
    """A table row. health: the words that it can be filtered by."""

    cells: tuple[Cell, ...]
    health: str = ""


NOTHING = Cell(text("\N{EN DASH}"), NO_VALUE, kind="nothing")


def table(names: Sequence[str], rows: Sequence[Row], kind: str) -> Html:
    """A sortable table; columns without a value in any row are left out."""
    kept = [
        index for index, _ in enumerate(names) if any(row.cells[index] != NOTHING for row in rows)
    ]
    head = '<th scope="col"><button type="button">{}</button></th>'
    return filled(
        _TABLE,
        kind,
        (filled(head, names[index]) for index in kept),
        (
            filled(
                '<tr data-health="{}">{}</tr>',
                row.health,
                (_cell(names[index], row.cells[index]) for index in kept),
            )
            for row in rows
        ),
    )


def _cell(name: str, cell: Cell) -> Html:
    bar = "" if cell.share is None else filled(_BAR, f"{max(1.0, 100 * cell.share):.1f}")
    return filled(_CELL, name, cell.order, cell.kind, cell.content, bar)


def text_cell(content: str, template: str = "{}", *more: str) -> Cell:
    """Text, sorted as such, in some markup; nothing if it is empty."""
    return Cell(filled(template, content, *more), content) if content else NOTHING


def number_cell(number: int) -> Cell:
    return Cell(text(number), number, kind="number")


def age_cell(moment: str | None, now: float, oldest: float | None = None) -> Cell:
    """A time, sorted by its age. oldest: the age of the column's oldest, for a bar."""
    if moment is None:
        return NOTHING
    seconds = age(moment, now)
    return Cell(ago(moment, now), seconds, seconds / oldest if oldest else None, "number")


def size_cell(count: int, largest: int) -> Cell:
    """A size in bytes, with a bar."""
    return Cell(text(size(count)), count, count / largest, "number")
