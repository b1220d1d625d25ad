"""Numbers and times as a page shows them."""

from __future__ import annotations

from dataclasses import dataclass

from bundler.system.times import rfc3339, seconds_of

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


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


def amount(count: int) -> str:
    """A human-readable size in bytes."""
    value, unit = float(count), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if not unit else f"{value:.1f} {_UNITS[unit]}"


def passed(moment: str, now: Now) -> str:
    """The human-readable age of a time."""
    seconds = now.since(moment)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
