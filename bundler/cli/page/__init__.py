"""One HTML page with everything that `workflows.status` knows of projects and artifacts.

The page is self-contained and sends no requests. A content security policy allows its one script
and one style sheet by hash, so that nothing from an artifact can ever run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from bundler.cli.page.history import history
from bundler.cli.page.markup import Html, Markup, element, joined, text, void
from bundler.cli.page.sections import filters, fleet, section
from bundler.cli.page.tables import ago
from bundler.cli.page.values import Now, labels
from bundler.system.wording import size
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
        element(
            "header",
            element("h1", text(heading)),
            element("dl", *_figures(holders, clock), class_="figures"),
        ),
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
    kinds = "projects" if all(item.kind == "project" for item in holders) else "artifacts"
    return f"State of {len(holders)} {kinds}"


def _figures(holders: Sequence[Holder], now: Now) -> Iterator[Html]:
    """The key figures at the top of the page."""
    keys = [key for holder in holders for key in holder.keys]
    failed = [holder for holder in holders if holder.failure is not None]
    oldest = min(filter(None, (holder.confirmed for holder in holders)), default=None)
    yield _figure("keys", str(len(keys)))
    yield _figure("size", size(sum(holder.size for holder in holders)))
    if oldest:
        yield _figure("oldest confirmed", ago(oldest, now))
    if len(holders) > 1:
        contents = {tuple(sorted(it.contents.values())) for it in holders if it.contents}
        yield _figure("different contents", str(len(contents)))
    alarms = {
        "findings": sum(len(holder.breaches) for holder in failed),
        "stale": sum(key.is_stale for key in keys),
        "without state": sum(key.is_missing for key in keys),
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
