"""The parts of the page: the overview table, and a section per project or artifact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bundler.artifacts.diff import Difference, KeyDifference
from bundler.cli.page.markup import Html, element, joined, text
from bundler.cli.page.values import Now, amount, passed
from bundler.workflows.status import Holder, KeyStatus

_SHOWN_DIGEST = 12
_MOST_FILES = 20
_SIGNS = {"added": "+", "removed": "\N{MINUS SIGN}", "changed": "~", "volatile": "≈"}
_TYPES = {
    "LOCAL_FILESYSTEM": "local",
    "VERSIONED_STATE_STORAGE": "versioned",
    "LEGACY_CODE_SERVER_SNAPSHOTS": "legacy",
}
_NO_VALUE = -1.0


@dataclass(frozen=True)
class _Cell:
    """A table cell. order: its sort key. share: relative to the column's largest value,
    for the bar below it; None for no bar."""

    content: Html
    order: str | float
    share: float | None = None
    kind: str = ""


_NOTHING = _Cell(text("\N{EN DASH}"), _NO_VALUE, kind="nothing")


def fleet(holders: Sequence[Holder], now: Now) -> Html:
    """The overview table of all holders."""
    largest = max((holder.size for holder in holders), default=0) or 1
    oldest = max((_oldest(holder, now) for holder in holders), default=0.0) or 1.0
    rows = [
        _fleet_row(holder, number, now, largest, oldest) for number, holder in enumerate(holders)
    ]
    names = ("Name", "Kind", "Keys", "Size", "Oldest confirmed", "Content")
    return element(
        "section",
        element("h2", text("Artifacts")),
        element(
            "label",
            text("Filter "),
            element("input", type="search", placeholder="name or content", id="filter"),
            class_="filter",
        ),
        _table(names, rows, "fleet"),
        class_="card",
    )


def _fleet_row(
    holder: Holder, number: int, now: Now, largest: int, oldest: float
) -> tuple[_Cell, ...]:
    link = element("a", text(holder.name), href=f"#holder-{number}")
    if holder.failure is not None:
        word = "altered" if holder.keys else "unreadable"
        return (
            _Cell(link, holder.name),
            _Cell(element("strong", text(word), class_="alarm"), word),
            *(_NOTHING,) * 4,
        )
    age = _oldest(holder, now)
    content = " ".join(value[:_SHOWN_DIGEST] for value in (holder.contents or {}).values())
    moments = list(_moments(holder))
    return (
        _Cell(link, holder.name),
        _Cell(text(holder.kind), holder.kind),
        _Cell(text(len(holder.keys)), len(holder.keys), kind="number"),
        _Cell(text(amount(holder.size)), holder.size, holder.size / largest, "number"),
        _age_cell(min(moments), now, age / oldest) if moments else _NOTHING,
        _Cell(element("code", text(content), class_="digest"), content) if content else _NOTHING,
    )


def section(holder: Holder, now: Now, number: int, *, folded: bool) -> Html:
    """One project or artifact."""
    parts = [*_facts(holder)]
    if holder.failure is not None:
        parts.append(_failure(holder))
    if holder.keys or holder.failure is None:
        parts.append(_keys(holder, now))
    if holder.since is not None:
        parts.append(_comparison(holder.since))
    if folded:
        summary = element("summary", element("h2", text(holder.name)))
        body = element("details", summary, *parts, open=holder.failure is not None)
    else:
        body = joined(*parts)
    return element("section", body, class_="card holder", id=f"holder-{number}")


def _facts(holder: Holder) -> Iterator[Html]:
    facts = [("kind", holder.kind), ("digest", holder.digest or "")]
    if holder.record is not None:
        build = holder.record.build
        facts += [("commit", build.commit or ""), ("from", build.remote or "")]
        facts += [("environment", holder.record.environment or "")]
    for path, digest in (holder.contents or {}).items():
        facts.append((f"content of {path}", digest))
    shown = [
        element("div", element("dt", text(name)), element("dd", element("code", text(value))))
        for name, value in facts
        if value
    ]
    yield element("dl", *shown, class_="facts")


def _failure(holder: Holder) -> Html:
    error = holder.failure
    if error is None:
        return joined()
    what = element("p", element("strong", text(f"{error.title}: ")), text(error.what))
    hint = element("p", text(error.hint)) if error.hint else joined()
    return element("div", what, hint, class_="failure", role="alert")


def _keys(holder: Holder, now: Now) -> Html:
    largest = max((key.size or 0 for key in holder.keys), default=0) or 1
    oldest = max((_age(key, now) or 0.0 for key in holder.keys), default=0.0) or 1.0
    since = holder.since
    used = any(key.users for key in holder.keys)
    names = ["Key", "Type", "Fetched", "Confirmed", "Size", "Digest"]
    names += ["Since the baseline"] * (since is not None) + ["Used by"] * used
    rows = []
    for key in holder.keys:
        row = [*_key_cells(key, now, largest, oldest)]
        if since is not None:
            row.append(_change_cell(since.of(key.key, key.directory)))
        if used:
            row.append(_Cell(_lines(key.users), " ".join(key.users)))
        rows.append(tuple(row))
    return _table(names, rows, "keys")


def _key_cells(key: KeyStatus, now: Now, largest: int, oldest: float) -> Iterator[_Cell]:
    stale = bool(key.refresh and key.refresh.stale)
    mark = element("strong", text(" stale"), class_="alarm") if stale else joined()
    if key.problem:
        mark = element("strong", text(f" ✗ {key.problem}"), class_="alarm")
    yield _Cell(joined(element("code", text(key.key)), mark), key.key)
    kind = _TYPES[key.management_type]
    yield _Cell(element("span", text(kind), title=key.management_type), kind)
    fetched = key.refresh.fetched if key.refresh else None
    yield _age_cell(fetched, now) if fetched else _NOTHING
    confirmed, age = _confirmed(key), _age(key, now)
    if confirmed and age is not None:
        yield _age_cell(confirmed, now, age / oldest)
    else:
        yield _NOTHING
    if key.size is not None:
        yield _Cell(text(amount(key.size)), key.size, key.size / largest, "number")
    elif key.management_type == "LOCAL_FILESYSTEM":
        yield _Cell(element("strong", text("no state"), class_="alarm"), _NO_VALUE)
    else:
        yield _NOTHING
    whole = key.digest or key.version or ""
    shown = whole[:_SHOWN_DIGEST]
    digest = element("code", text(shown), title=whole, class_="digest")
    yield _Cell(digest, shown) if shown else _NOTHING


def _change_cell(change: KeyDifference | None) -> _Cell:
    if change is None:
        return _Cell(element("span", text("unchanged"), class_="same"), "unchanged")
    told: str = "only ignored members" if change.kind == "volatile" else change.kind
    if change.summary and change.kind == "changed":
        told = f"changed: {change.summary}"
    return _Cell(element("span", text(told), class_=change.kind), told)


# --- comparison -----------------------------------------------------------------------------


def _comparison(difference: Difference) -> Html:
    heading = element("h3", text(f"What changed since {difference.before}"))
    if not difference.keys:
        told = f"Nothing: {difference.unchanged} keys are unchanged."
        return joined(heading, element("p", text(told), class_="same"))
    changes = element("ul", *map(_change, difference.keys), class_="changes")
    return joined(heading, changes, element("p", text(f"{difference.unchanged} unchanged.")))


def _change(key: KeyDifference) -> Html:
    sign = element("span", text(_SIGNS[key.kind]), class_=f"sign {key.kind}")
    name = element("code", text(key.key))
    told = text(f" {key.kind}{f': {key.summary}' if key.summary else ''} ({_sizes(key)})")
    files = [
        element("li", text(f"{_SIGNS[file.kind]} {file.path}")) for file in key.files[:_MOST_FILES]
    ]
    if len(key.files) > _MOST_FILES:
        files.append(element("li", text(f"and {len(key.files) - _MOST_FILES} more")))
    return element("li", sign, name, told, element("ul", *files) if len(files) > 1 else joined())


def _sizes(key: KeyDifference) -> str:
    shown = [amount(value) if isinstance(value, int) else str(value or "nothing") for value in
             (key.before, key.after)]  # fmt: skip
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} → {shown[1]}"


# --- tables ---------------------------------------------------------------------------------


def _table(names: Sequence[str], rows: Sequence[Sequence[_Cell]], kind: str) -> Html:
    """A sortable table; on a narrow screen each row becomes a card."""
    head = element("tr", *(element("th", _sorter(name), scope="col") for name in names))
    body = [
        element("tr", *(_cell(name, cell) for name, cell in zip(names, row, strict=True)))
        for row in rows
    ]
    parts = (element("thead", head), element("tbody", *body))
    return element("div", element("table", *parts, class_=kind), class_="scroll")


def _sorter(name: str) -> Html:
    return element("button", text(name), type="button")


def _cell(name: str, cell: _Cell) -> Html:
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


def _age_cell(moment: str, now: Now, share: float | None = None) -> _Cell:
    return _Cell(ago(moment, now), now.since(moment), share, "number")


def ago(moment: str, now: Now) -> Html:
    """The age of a time, which the page's script keeps up to date."""
    return element("time", text(f"{passed(moment, now)} ago"), datetime=moment, title=moment)


def _lines(lines: Sequence[str]) -> Html:
    return joined(*(element("span", text(line), class_="line") for line in lines))


def _confirmed(key: KeyStatus) -> str | None:
    return (key.refresh.confirmed or key.refresh.fetched) if key.refresh else None


def _age(key: KeyStatus, now: Now) -> float | None:
    confirmed = _confirmed(key)
    return None if confirmed is None else now.since(confirmed)


def _moments(holder: Holder) -> Iterator[str]:
    yield from (moment for key in holder.keys if (moment := _confirmed(key)) is not None)


def _oldest(holder: Holder, now: Now) -> float:
    return max(map(now.since, _moments(holder)), default=0.0)
