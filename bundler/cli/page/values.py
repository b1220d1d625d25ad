"""Numbers and times as a page shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bundler.system.times import rfc3339, seconds_of

# An absolute path, after the name of a transport if there is one.
_ABSOLUTE = re.compile(r"(?P<transport>[a-z-]+:)?(?P<path>/[^/].*)")


@dataclass(frozen=True)
class Now:
    """When the page was created, in seconds since the epoch."""

    seconds: float

    @property
    def iso(self) -> str:
        return rfc3339(self.seconds)

    def since(self, moment: str) -> float:
        """The age of an RFC 3339 time in seconds; at least 0."""
        return max(0.0, self.seconds - seconds_of(moment))


def passed(moment: str, now: Now) -> str:
    """The human-readable age of a time."""
    seconds = now.since(moment)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def labels(names: Iterable[str]) -> dict[str, str]:
    """A label for each artifact or project, without folders of the machine that wrote the page.

    An absolute path is shortened to the last parts that distinguish it from the others.
    """
    found: dict[str, str] = {}
    known = list(dict.fromkeys(names))
    for name in known:
        match = _ABSOLUTE.fullmatch(name)
        parts = match["path"].strip("/").split("/") if match else [name]
        shown = next(
            (tail for tail in _tails(parts) if sum(_ends(other, tail) for other in known) == 1),
            name,
        )
        found[name] = (match["transport"] or "") + shown if match else name
    return found


def _tails(parts: list[str]) -> list[str]:
    return ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _ends(name: str, tail: str) -> bool:
    return name.rstrip("/") == tail or name.rstrip("/").endswith(f"/{tail}")
