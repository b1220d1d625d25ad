"""The parts of the page: the filter, the overview table, a section per project or artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bundler.artifacts.diff import Difference, KeyDifference
from bundler.cli.console import short
from bundler.cli.page import health
from bundler.cli.page.markup import Html, filled, text
from bundler.cli.page.tables import (
    NOTHING,
    Cell,
    Row,
    age_cell,
    number_cell,
    size_cell,
    table,
    text_cell,
)
from bundler.cli.page.values import age
from bundler.errors import BundlerError
from bundler.system.wording import counted, size
from bundler.workflows.status import TYPES, Holder, KeyStatus

_SHOWN_COMMIT = 8
_MOST_FILES = 20
_SIGNS = {"added": "+", "removed": "\N{MINUS SIGN}", "changed": "~", "volatile": "≈"}
_FLEET = ("Name", "Health", "Kind", "Keys", "Size", "Oldest confirmed", "Built from", "Content")
_KEYS = (
    *("Key", "Health", "Type", "Fetched", "Confirmed", "Size", "Digest"),
    *("Since the baseline", "Used by"),
)
_FILTERS = (
    '<form class="filter">'
    '<label>Filter <input type="search" placeholder="key, artifact, digest" id="filter"></label>'
    '<label>Health <select id="health"><option value="any">any health</option>{}</select></label>'
    '<output id="shown"></output></form>'
)
_SECTION = (
    '<section class="card holder" id="holder-{}" data-name="{}" data-health="{}">{}</section>'
)
_FAILURE = '<div class="failure" role="alert"><p><strong>{}: </strong>{}</p>{}{}</div>'


def filters(holders: Sequence[Holder]) -> Html:
    badges = [badge for holder in holders for badge in health.of_holder(holder)]
    badges += [badge for h in holders for key in h.keys for badge in health.of_key(key, h)]
    found = {word for badge in badges for word in health.words([badge]).split("|")}
    known = sorted(found, key=lambda word: (word != health.ATTENTION, word))
    return filled(_FILTERS, (filled('<option value="{0}">{0}</option>', word) for word in known))


def fleet(holders: Sequence[Holder], named: Mapping[str, str], now: float) -> Html:
    largest = max((holder.size for holder in holders), default=0) or 1
    oldest = max((age(holder.confirmed, now) for holder in holders), default=0.0) or 1.0
    rows = [
        Row(
            (
                text_cell(named[holder.name], '<a href="#holder-{1}">{0}</a>', str(number)),
                *_fleet_cells(holder, now, largest, oldest),
            )
        )
        for number, holder in enumerate(holders)
    ]
    return filled(
        '<section class="card"><h2>{}</h2>{}</section>',
        "Projects" if all(item.kind == "project" for item in holders) else "Artifacts",
        table(_FLEET, rows, "fleet"),
    )


def _fleet_cells(holder: Holder, now: float, largest: int, oldest: float) -> Iterator[Cell]:
    yield _health_cell(list(health.of_holder(holder)))
    if not holder.keys:
        yield from (NOTHING,) * 6
        return
    yield text_cell(holder.kind)
    yield number_cell(len(holder.keys))
    yield size_cell(holder.size, largest)
    yield age_cell(holder.confirmed, now, oldest)
    yield text_cell(_built(holder))
    content = " ".join(short(value) for value in (holder.contents or {}).values())
    yield text_cell(content, '<code class="digest">{}</code>')


def _health_cell(found: Sequence[health.Badge]) -> Cell:
    return Cell(health.badges(found), health.words(found)) if found else NOTHING


def _built(holder: Holder) -> str:
    """The commit and the environment, if the artifact records them."""
    record = holder.record
    if record is None:
        return ""
    commit = (record.build.commit or "")[:_SHOWN_COMMIT]
    return " for ".join(filter(None, (commit, record.environment)))


def section(
    holder: Holder, named: Mapping[str, str], now: float, number: int, *, alone: bool
) -> Html:
    name, error, found = named[holder.name], holder.failure, list(health.of_holder(holder))
    on_keys = {badge for key in holder.keys for badge in health.of_key(key, holder)}
    body = filled(
        '<p class="badges">{}</p><dl class="facts">{}</dl>{}{}{}',
        health.badges(found),
        _facts(holder),
        "" if error is None else _failure(holder, error),
        _keys(holder, now) if holder.keys or error is None else "",
        "" if holder.since is None else _comparison(holder.since, named),
    )
    if not alone:
        is_open = "" if error is None else " open"
        body = filled("<details{}><summary><h2>{}</h2></summary>{}</details>", is_open, name, body)
    others = health.words([badge for badge in found if badge not in on_keys])
    return filled(_SECTION, number, f"{name} {holder.kind} {_built(holder)}", others, body)


def _facts(holder: Holder) -> Iterator[Html]:
    facts = [("kind", holder.kind), ("digest", holder.digest)]
    if (record := holder.record) is not None:
        facts += [("commit", record.build.commit), ("from", record.build.remote)]
        facts += [("environment", record.environment)]
    facts += [("signed by", holder.signer)]
    facts += [(f"content of {path}", it) for path, it in (holder.contents or {}).items()]
    for name, value in facts:
        if value:
            yield filled("<div><dt>{}</dt><dd><code>{}</code></dd></div>", name, value)


def _failure(holder: Holder, error: BundlerError) -> Html:
    line = "<li><strong>{}: </strong>{}</li>"
    found = [filled(line, breach.rule, breach.what) for breach in holder.breaches]
    listed = filled("<ul>{}</ul>", found) if found else ""
    hint = filled("<p>{}</p>", error.hint) if error.hint else ""
    return filled(_FAILURE, error.title, error.what, listed, hint)


def _keys(holder: Holder, now: float) -> Html:
    largest = max((key.size or 0 for key in holder.keys), default=0) or 1
    oldest = age(holder.confirmed, now) or 1.0
    rows = []
    for key in holder.keys:
        found = list(health.of_key(key, holder))
        first = (text_cell(key.key, "<code>{}</code>"), _health_cell(found))
        cells = (*first, *_key_cells(key, holder, now, largest, oldest))
        rows.append(Row(cells, health.words(found)))
    return table(_KEYS, rows, "keys")


def _key_cells(
    key: KeyStatus, holder: Holder, now: float, largest: int, oldest: float
) -> Iterator[Cell]:
    yield text_cell(TYPES[key.management_type], '<span title="{1}">{0}</span>', key.management_type)
    yield age_cell(key.refresh.fetched if key.refresh else None, now)
    yield age_cell(key.confirmed, now, oldest)
    yield NOTHING if key.size is None else size_cell(key.size, largest)
    whole = key.digest or key.version or ""
    digest = '<code title="{1}" class="digest">{0}</code>'
    yield text_cell(short(whole), digest, whole)
    since = holder.since
    yield NOTHING if since is None else _change_cell(since.of(key.key, key.directory))
    users = text(filled('<span class="user">{}</span>', user) for user in key.users)
    yield Cell(users, " ".join(key.users)) if users else NOTHING


def _change_cell(change: KeyDifference | None) -> Cell:
    kind = "same" if change is None else change.kind
    told = {"same": "unchanged", "volatile": "only ignored members"}.get(kind, kind)
    if change is not None and change.summary and kind == "changed":
        told = f"changed: {change.summary}"
    return text_cell(told, '<span class="{1}">{0}</span>', kind)


# --- comparison -----------------------------------------------------------------------------


def _comparison(difference: Difference, named: Mapping[str, str]) -> Html:
    before = named.get(difference.before, difference.before)
    if not difference.keys:
        told = '<h3>What changed since {}</h3><p class="same">Nothing: {} unchanged.</p>'
        unchanged = counted(difference.unchanged, "key is", "keys are")
        return filled(told, before, unchanged)
    told = '<h3>What changed since {}</h3><ul class="changes">{}</ul><p>{} unchanged.</p>'
    return filled(told, before, map(_change, difference.keys), difference.unchanged)


def _change(key: KeyDifference) -> Html:
    told = f" {key.kind}{f': {key.summary}' if key.summary else ''} ({_sizes(key)})"
    files = [f"{_SIGNS[file.kind]} {file.path}" for file in key.files[:_MOST_FILES]]
    if len(key.files) > _MOST_FILES:
        files.append(f"and {len(key.files) - _MOST_FILES} more")
    lines = filled("<ul>{}</ul>", (filled("<li>{}</li>", file) for file in files))
    return filled(
        '<li><span class="sign {}">{}</span><code>{}</code>{}{}</li>',
        *(key.kind, _SIGNS[key.kind], key.key, told),
        lines if len(files) > 1 else "",
    )


def _sizes(key: KeyDifference) -> str:
    values = (key.before, key.after)
    shown = [size(it) if isinstance(it, int) else str(it or "nothing") for it in values]
    return " → ".join(dict.fromkeys(shown))
