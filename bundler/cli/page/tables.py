"""Tables that sort, filter, and become cards on a narrow screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bundler.cli.page.markup import Html, element, joined, text
from bundler.cli.page.values import Now, passed
from bundler.system.wording import size

NO_VALUE = -1.0


@dataclass(frozen=True)
class Cell:
    """A table cell. order: its sort key. share: relative to the column's largest value,
    for the bar below it; None for no bar."""

    content: Html
    order: str | float
    share: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Row:
    """A table row. health: the words that it can be filtered by."""

    cells: tuple[Cell, ...]
    health: str = ""


NOTHING = Cell(text("\N{EN DASH}"), NO_VALUE, kind="nothing")


def table(names: Sequence[str], rows: Sequence[Row], kind: str) -> Html:
    """A sortable table; columns without a value in any row are left out."""
    kept = [
        index for index, _ in enumerate(names) if any(row.cells[index] != NOTHING for row in rows)
    ]
    sorters = (element("button", text(names[index]), type="button") for index in kept)
    head = element("tr", *(element("th", sorter, scope="col") for sorter in sorters))
    body = [
        element(
            "tr", *(_cell(names[index], row.cells[index]) for index in kept), data_health=row.health
        )
        for row in rows
    ]
    parts = (element("thead", head), element("tbody", *body))
    return element("div", element("table", *parts, class_=kind), class_="scroll")


def _cell(name: str, cell: Cell) -> Html:
    content = element("span", cell.content, class_="value")
    bar = joined() if cell.share is None else _bar(cell.share)
    return element(
        "td", content, bar, data_label=name, data_order=str(cell.order), class_=cell.kind
    )


def _bar(share: float) -> Html:
    width = f"{max(1.0, 100 * share):.1f}"
    rect = element("rect", width=width, height=4, rx=2)
    ground = element("rect", width=100, height=4, rx=2, class_="ground")
    return element(
        "svg", ground, rect, class_="bar", viewBox="0 0 100 4", preserveAspectRatio="none",
        aria_hidden="true",
    )  # fmt: skip


def age_cell(moment: str | None, now: Now, oldest: float | None = None) -> Cell:
    """A time, sorted by its age. oldest: the age of the column's oldest, for a bar."""
    if moment is None:
        return NOTHING
    age = now.since(moment)
    return Cell(ago(moment, now), age, age / oldest if oldest else None, "number")


def size_cell(count: int, largest: int) -> Cell:
    """A size in bytes, with a bar."""
    return Cell(text(size(count)), count, count / largest, "number")


def ago(moment: str, now: Now) -> Html:
    """The age of a time, which the page's script keeps up to date."""
    return element("time", text(f"{passed(moment, now)} ago"), datetime=moment, title=moment)
