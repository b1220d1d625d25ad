"""One HTML page with everything that `workflows.status` knows of projects and artifacts.

The page is self-contained and sends no requests. A content security policy allows its one script
and one style sheet by hash, so that nothing from an artifact can ever run.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bundler.cli.page.history import history
from bundler.cli.page.markup import Html, Markup, element, joined, text, void
from bundler.cli.page.sections import filters, fleet, section
from bundler.cli.page.tables import ago
from bundler.cli.page.values import Now, amount, labels
from bundler.version import __version__
from bundler.workflows.status import Holder

_HERE = Path(__file__).parent


def page(holders: Sequence[Holder], now: float, *, title: str = "") -> str:
    """Renders the page. now: seconds since the epoch, when the holders were read."""
    heading = title or _title(holders)
    style, script = (
        (_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js")
    )
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    clock = Now(now)
    head = joined(
        void("meta", charset="utf-8"),
        void("meta", http_equiv="Content-Security-Policy", content=policy),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", name="color-scheme", content="light dark"),
        element("title", text(heading)),
        element("style", Markup(style)),
    )
    body = joined(
        element("header", _heading(heading, holders, clock)),
        element("main", *_main(holders, clock)),
        element("footer", text(f"state-bundler {__version__}, {clock.iso}")),
        element("script", Markup(script)),
    )
    return str(
        joined(
            Markup("<!DOCTYPE html>\n"),
            element("html", element("head", head), element("body", body), lang="en"),
        )
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _title(holders: Sequence[Holder]) -> str:
    if len(holders) == 1:
        return f"State of {labels([holders[0].name])[holders[0].name]}"
    return f"State of {len(holders)} {_kinds(holders)}"


def _kinds(holders: Iterable[Holder]) -> str:
    return "projects" if all(item.kind == "project" for item in holders) else "artifacts"


def _heading(heading: str, holders: Sequence[Holder], now: Now) -> Html:
    return joined(
        element("h1", text(heading)),
        element("dl", *_figures(holders, now), class_="figures"),
    )


def _figures(holders: Sequence[Holder], now: Now) -> Iterator[Html]:
    """The key figures at the top of the page."""
    keys = [key for holder in holders for key in holder.keys]
    failed = [holder for holder in holders if holder.failure is not None]
    moments = [
        key.refresh.confirmed or key.refresh.fetched
        for key in keys
        if key.refresh and (key.refresh.confirmed or key.refresh.fetched)
    ]
    stale = sum(bool(key.refresh and key.refresh.stale) for key in keys)
    missing = sum(key.size is None and key.management_type == "LOCAL_FILESYSTEM" for key in keys)
    yield _figure("keys", str(len(keys)))
    yield _figure("size", amount(sum(holder.size for holder in holders)))
    if moments:
        yield _figure("oldest confirmed", ago(min(filter(None, moments)), now))
    if len(holders) > 1:
        yield _figure("different contents", str(len(_contents(holders))))
    alarms = {
        "findings": sum(len(holder.breaches) for holder in failed),
        "stale": stale,
        "without state": missing,
        "altered": sum(bool(holder.keys) and not holder.breaches for holder in failed),
        "unreadable": sum(not holder.keys for holder in failed),
    }
    for name, count in alarms.items():
        if count:
            yield _figure(name, str(count), alarm=True)


def _figure(name: str, value: str | Html, *, alarm: bool = False) -> Html:
    shown = text(value) if isinstance(value, str) else value
    parts = joined(element("dt", text(name)), element("dd", shown))
    return element("div", parts, class_="alarm" if alarm else "")


def _contents(holders: Sequence[Holder]) -> dict[str, list[str]]:
    """The names of the holders, by content."""
    found: dict[str, list[str]] = defaultdict(list)
    for holder in holders:
        if holder.contents:
            found[" ".join(sorted(holder.contents.values()))].append(holder.name)
    return found


def _main(holders: Sequence[Holder], now: Now) -> Iterator[Html]:
    baselines = [holder.since.before for holder in holders if holder.since]
    named = labels([*(holder.name for holder in holders), *baselines])
    yield filters(holders)
    if len(holders) > 1:
        yield fleet(holders, named, now)
    for number, holder in enumerate(holders):
        yield section(holder, named, now, number, alone=len(holders) == 1)
    grown = history(holders, named, now)
    if grown is not None:
        yield grown
