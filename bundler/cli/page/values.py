"""Times and names as a page shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bundler.cli.page.markup import Html, filled
from bundler.system.times import is_future, seconds_of

# An absolute path, after the name of a transport if there is one.
_ABSOLUTE = re.compile(r"(?P<transport>[a-z-]+:)?(?P<path>/[^/].*)")


def age(moment: str | None, now: float) -> float:
    """The age of an RFC 3339 time in seconds; at least 0."""
    return max(0.0, now - seconds_of(moment)) if moment else 0.0


def ago(moment: str, now: float) -> Html:
    """The age of a time, which the page's script keeps up to date."""
    shown = (
        "in the future"
        if is_future(now - seconds_of(moment))
        else f"{_passed(age(moment, now))} ago"
    )
    return filled('<time datetime="{0}" title="{0}">{1}</time>', moment, shown)


def _passed(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def labels(names: Iterable[str]) -> dict[str, str]:
    """A label for each artifact or project, without folders of the machine that wrote the page.

    An absolute path is shortened to the last parts that distinguish it from the others.
    """
    known = list(dict.fromkeys(names))
    return {name: _label(name, known) for name in known}


def _label(name: str, known: list[str]) -> str:
    match = _ABSOLUTE.fullmatch(name)
    if match is None:
        return name
    parts = match["path"].strip("/").split("/")
    tails = ("/".join(parts[-count:]) for count in range(1, len(parts) + 1))
    return (match["transport"] or "") + next(
        (tail for tail in tails if sum(_ends(other, tail) for other in known) == 1), name
    )


def _ends(name: str, tail: str) -> bool:
    return f"/{name.rstrip('/')}".endswith(f"/{tail}")
