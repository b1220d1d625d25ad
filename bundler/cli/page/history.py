"""How each key's state grew and shrank: over the artifacts of the page, and a store's versions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from bundler.cli.page.markup import Html, filled
from bundler.cli.page.tables import NOTHING, Cell, Row, age_cell, number_cell, table, text_cell
from bundler.system.times import seconds_of
from bundler.system.wording import size
from bundler.workflows.status import Holder, Moment

_WIDTH, _HEIGHT, _MARGIN = 120.0, 28.0, 3.0
_NAMES = ("Key", "States", "First", "Last", "Size", "Entries")
_LINE = (
    f'<span>{{}} <svg class="line" role="img" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}">'
    '<title>{}</title><polyline points="{}"></svg></span>'
)


def history(holders: Sequence[Holder], named: Mapping[str, str], now: float) -> Html:
    """A line per key that had more than one state; empty if there is no such key."""
    rows = [
        Row(tuple(_cells(key, moments, now)))
        for key, moments in sorted(_moments(holders, named).items())
        if len(moments) > 1
    ]
    section = '<section class="card"><h2>History</h2>{}</section>'
    return filled(section, table(_NAMES, rows, "history")) if rows else Html()


def _moments(holders: Sequence[Holder], named: Mapping[str, str]) -> dict[str, list[Moment]]:
    """By key, the oldest first. A state that several artifacts hold counts once."""
    found: dict[str, dict[tuple[str, str], Moment]] = defaultdict(dict)
    for holder in holders:
        for moment in (*holder.earlier, *_held(holder, named[holder.name])):
            found[moment.key][moment.at, moment.digest] = moment
    return {
        key: sorted(moments.values(), key=lambda moment: moment.at)
        for key, moments in found.items()
    }


def _held(holder: Holder, name: str) -> Iterator[Moment]:
    for key in holder.keys:
        if key.refresh and key.refresh.fetched and key.size is not None and not key.problem:
            yield Moment(
                key.key, key.refresh.fetched, key.size, key.digest or "", name, key.entries
            )


def _cells(key: str, moments: Sequence[Moment], now: float) -> Iterator[Cell]:
    yield text_cell(key, "<code>{}</code>")
    yield number_cell(len(moments))
    yield age_cell(moments[0].at, now)
    yield age_cell(moments[-1].at, now)
    yield _line_cell([(moment, moment.size) for moment in moments], size)
    counted = [(moment, moment.entries) for moment in moments if moment.entries is not None]
    yield _line_cell(counted, str) if len(counted) > 1 else NOTHING


def _line_cell(points: Sequence[tuple[Moment, int]], shown: Callable[[int], str]) -> Cell:
    first, last = points[0][1], points[-1][1]
    change = " → ".join(dict.fromkeys((shown(first), shown(last))))
    said = "\n".join(f"{moment.at} {moment.where}: {shown(value)}" for moment, value in points)
    drawn = filled(_LINE, change, said, " ".join(_places(points)))
    return Cell(drawn, last - first, kind="number")


def _places(points: Sequence[tuple[Moment, int]]) -> Iterator[str]:
    """Where each point is in the drawing: time to the right, values upward from zero."""
    begin, end = (seconds_of(moment.at) for moment, _ in (points[0], points[-1]))
    highest = max(value for _, value in points) or 1
    for moment, value in points:
        share = (seconds_of(moment.at) - begin) / (end - begin) if end > begin else 0.5
        x = _MARGIN + share * (_WIDTH - 2 * _MARGIN)
        y = _HEIGHT - _MARGIN - value / highest * (_HEIGHT - 2 * _MARGIN)
        yield f"{x:.1f},{y:.1f}"
