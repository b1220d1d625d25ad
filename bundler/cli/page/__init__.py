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
from bundler.cli.page.markup import Html, filled
from bundler.cli.page.sections import filters, fleet, section
from bundler.cli.page.values import ago, labels
from bundler.system.times import rfc3339
from bundler.system.wording import size
from bundler.version import __version__
from bundler.workflows.status import Holder

_HERE = Path(__file__).parent
_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">\
<meta http-equiv="Content-Security-Policy" content="{policy}">\
<meta name="viewport" content="width=device-width, initial-scale=1">\
<meta name="color-scheme" content="light dark">\
<title>{heading}</title><style>{style}</style></head>\
<body><header><h1>{heading}</h1><dl class="figures">{figures}</dl></header>\
<main>{main}</main><footer>state-bundler {version}, {now}</footer>\
<script>{script}</script></body></html>"""


def page(holders: Sequence[Holder], now: float) -> str:
    """Renders the page. now: seconds since the epoch, when the holders were read."""
    style, script = (
        Html((_HERE / name).read_text(encoding="utf-8")) for name in ("style.css", "script.js")
    )
    return filled(
        _PAGE,
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        heading=_title(holders),
        style=style,
        script=script,
        figures=_figures(holders, now),
        main=_main(holders, now),
        version=__version__,
        now=rfc3339(now),
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _title(holders: Sequence[Holder]) -> str:
    if len(holders) == 1:
        return f"State of {labels([holders[0].name])[holders[0].name]}"
    kinds = "projects" if all(item.kind == "project" for item in holders) else "artifacts"
    return f"State of {len(holders)} {kinds}"


def _contents(count: int) -> str:
    return "identical" if count == 1 else f"{count} different"


def _figures(holders: Sequence[Holder], now: float) -> Iterator[Html]:
    """The key figures at the top of the page."""
    keys = [key for holder in holders for key in holder.keys]
    failed = [holder for holder in holders if holder.failure is not None]
    oldest = min(filter(None, (holder.confirmed for holder in holders)), default=None)
    contents = {tuple(sorted(it.contents.values())) for it in holders if it.contents}
    figures = {
        "keys": str(len(keys)),
        "size": size(sum(holder.size for holder in holders)),
        "oldest confirmed": ago(oldest, now) if oldest else "",
        "contents": _contents(len(contents)) if len(holders) > 1 else "",
    }
    alarms = {
        "findings": sum(len(holder.breaches) for holder in failed),
        "stale": sum(key.is_stale for key in keys),
        "without state": sum(key.is_missing for key in keys),
        "altered": sum(bool(holder.keys) and not holder.breaches for holder in failed),
        "unreadable": sum(not holder.keys for holder in failed),
    }
    for name, value in figures.items():
        if value:
            yield filled("<div><dt>{}</dt><dd>{}</dd></div>", name, value)
    for name, count in alarms.items():
        if count:
            yield filled('<div class="alarm"><dt>{}</dt><dd>{}</dd></div>', name, count)


def _main(holders: Sequence[Holder], now: float) -> Iterator[Html]:
    baselines = [holder.since.before for holder in holders if holder.since]
    named = labels([*(holder.name for holder in holders), *baselines])
    yield filters(holders)
    if len(holders) > 1:
        yield fleet(holders, named, now)
    for number, holder in enumerate(holders):
        yield section(holder, named, now, number, alone=len(holders) == 1)
    yield history(holders, named, now)
