"""The parts of the page: the filter, the overview table, a section per project or artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bundler.artifacts.diff import Difference, KeyDifference
from bundler.cli.page import health
from bundler.cli.page.markup import Html, element, joined, text, void
from bundler.cli.page.tables import NOTHING, Cell, Row, age_cell, size_cell, table
from bundler.cli.page.values import Now
from bundler.system.wording import size
from bundler.workflows.status import TYPES, Holder, KeyStatus

_SHOWN_DIGEST = 12
_SHOWN_COMMIT = 8
_MOST_FILES = 20
_SIGNS = {"added": "+", "removed": "\N{MINUS SIGN}", "changed": "~", "volatile": "≈"}


def filters(holders: Sequence[Holder]) -> Html:
    """The controls that filter the keys and artifacts of the page."""
    badges = [badge for holder in holders for badge in health.of_holder(holder)]
    badges += [badge for h in holders for key in h.keys for badge in health.of_key(key, h)]
    found = dict.fromkeys(word for badge in badges for word in health.words([badge]).split("|"))
    known = [health.ATTENTION] * (health.ATTENTION in found)
    known += sorted(word for word in found if word != health.ATTENTION)
    options = [element("option", text("any health"), value="any")]
    options += [element("option", text(word), value=word) for word in known]
    search = void("input", type="search", placeholder="key, artifact, digest", id="filter")
    return element(
        "form",
        element("label", text("Filter "), search),
        element("label", text("Health "), element("select", *options, id="health")),
        element("output", id="shown"),
        class_="filter",
    )


def fleet(holders: Sequence[Holder], named: Mapping[str, str], now: Now) -> Html:
    """The overview table of all holders."""
    largest = max((holder.size for holder in holders), default=0) or 1
    oldest = max((_age(holder, now) for holder in holders), default=0.0) or 1.0
    rows = [
        Row((_link(named[holder.name], number), *_fleet_cells(holder, now, largest, oldest)))
        for number, holder in enumerate(holders)
    ]
    names = ("Name", "Health", "Kind", "Keys", "Size", "Oldest confirmed", "Built from", "Content")
    heading = "Projects" if all(item.kind == "project" for item in holders) else "Artifacts"
    return element(
        "section", element("h2", text(heading)), table(names, rows, "fleet"), class_="card"
    )


def _link(name: str, number: int) -> Cell:
    return Cell(element("a", text(name), href=f"#holder-{number}"), name)


def _fleet_cells(holder: Holder, now: Now, largest: int, oldest: float) -> Iterator[Cell]:
    found = list(health.of_holder(holder))
    yield Cell(health.badges(found), health.words(found))
    if not holder.keys:
        yield from (NOTHING,) * 6
        return
    content = " ".join(value[:_SHOWN_DIGEST] for value in (holder.contents or {}).values())
    built = _built(holder)
    yield Cell(text(holder.kind), holder.kind)
    yield Cell(text(len(holder.keys)), len(holder.keys), kind="number")
    yield size_cell(holder.size, largest)
    yield age_cell(holder.confirmed, now, oldest)
    yield Cell(text(built), built) if built else NOTHING
    yield Cell(element("code", text(content), class_="digest"), content) if content else NOTHING


def _built(holder: Holder) -> str:
    """The commit and the environment, if the artifact records them."""
    record = holder.record
    if record is None:
        return ""
    commit = (record.build.commit or "")[:_SHOWN_COMMIT]
    return " for ".join(filter(None, (commit, record.environment)))


def section(
    holder: Holder, named: Mapping[str, str], now: Now, number: int, *, alone: bool
) -> Html:
    """One project or artifact."""
    found = list(health.of_holder(holder))
    on_keys = {badge for key in holder.keys for badge in health.of_key(key, holder)}
    parts = [element("p", health.badges(found), class_="badges"), *_facts(holder)]
    if holder.failure is not None:
        parts.append(_failure(holder))
    if holder.keys or holder.failure is None:
        parts.append(_keys(holder, now))
    if holder.since is not None:
        parts.append(_comparison(holder.since, named))
    if alone:
        body = joined(*parts)
    else:
        summary = element("summary", element("h2", text(named[holder.name])))
        body = element("details", summary, *parts, open=holder.failure is not None)
    return element(
        "section",
        body,
        class_="card holder",
        id=f"holder-{number}",
        data_name=f"{named[holder.name]} {holder.kind} {_built(holder)}",
        data_health=health.words([badge for badge in found if badge not in on_keys]),
    )


def _facts(holder: Holder) -> Iterator[Html]:
    facts = [("kind", holder.kind), ("digest", holder.digest or "")]
    if holder.record is not None:
        build = holder.record.build
        facts += [("commit", build.commit or ""), ("from", build.remote or "")]
        facts += [("environment", holder.record.environment or "")]
    facts += [("signed by", holder.signer or "")]
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
    parts = [element("p", element("strong", text(f"{error.title}: ")), text(error.what))]
    if holder.breaches:
        found = (
            element("li", element("strong", text(f"{breach.rule}: ")), text(breach.what))
            for breach in holder.breaches
        )
        parts.append(element("ul", *found))
    if error.hint:
        parts.append(element("p", text(error.hint)))
    return element("div", *parts, class_="failure", role="alert")


def _keys(holder: Holder, now: Now) -> Html:
    largest = max((key.size or 0 for key in holder.keys), default=0) or 1
    oldest = _age(holder, now) or 1.0
    since = holder.since
    used = any(key.users for key in holder.keys)
    names = ["Key", "Health", "Type", "Fetched", "Confirmed", "Size", "Digest"]
    names += ["Since the baseline"] * (since is not None) + ["Used by"] * used
    rows = []
    for key in holder.keys:
        found = list(health.of_key(key, holder))
        cells = [*_key_cells(key, found, now, largest, oldest)]
        if since is not None:
            cells.append(_change_cell(since.of(key.key, key.directory)))
        if used:
            users = (element("span", text(user), class_="user") for user in key.users)
            cells.append(Cell(joined(*users), " ".join(key.users)))
        rows.append(Row(tuple(cells), health.words(found)))
    return table(names, rows, "keys")


def _key_cells(
    key: KeyStatus, found: Sequence[health.Badge], now: Now, largest: int, oldest: float
) -> Iterator[Cell]:
    yield Cell(element("code", text(key.key)), key.key)
    yield Cell(health.badges(found), health.words(found)) if found else NOTHING
    kind = TYPES[key.management_type]
    yield Cell(element("span", text(kind), title=key.management_type), kind)
    fetched = key.refresh.fetched if key.refresh else None
    yield age_cell(fetched, now)
    yield age_cell(key.confirmed, now, oldest)
    yield NOTHING if key.size is None else size_cell(key.size, largest)
    whole = key.digest or key.version or ""
    shown = whole[:_SHOWN_DIGEST]
    digest = element("code", text(shown), title=whole, class_="digest")
    yield Cell(digest, shown) if shown else NOTHING


def _change_cell(change: KeyDifference | None) -> Cell:
    if change is None:
        return Cell(element("span", text("unchanged"), class_="same"), "unchanged")
    told: str = "only ignored members" if change.kind == "volatile" else change.kind
    if change.summary and change.kind == "changed":
        told = f"changed: {change.summary}"
    return Cell(element("span", text(told), class_=change.kind), told)


# --- comparison -----------------------------------------------------------------------------


def _comparison(difference: Difference, named: Mapping[str, str]) -> Html:
    before = named.get(difference.before, difference.before)
    heading = element("h3", text(f"What changed since {before}"))
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
    values = (key.before, key.after)
    shown = [size(it) if isinstance(it, int) else str(it or "nothing") for it in values]
    return " → ".join(dict.fromkeys(shown))


def _age(holder: Holder, now: Now) -> float:
    """Of its oldest state, in seconds."""
    return now.since(holder.confirmed) if holder.confirmed else 0.0
