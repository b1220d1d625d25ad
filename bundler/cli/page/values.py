"""Numbers and times as a page shows them."""

from __future__ import annotations

from dataclasses import dataclass

from bundler.system.times import rfc3339, seconds_of

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


@dataclass(frozen=True)
class Now:
    """When the page is made, in seconds since the epoch."""

    seconds: float

    @property
    def iso(self) -> str:
        return rfc3339(self.seconds)

    def since(self, moment: str) -> float:
        """How many seconds ago an RFC 3339 time was; never less than none."""
        return max(0.0, self.seconds - seconds_of(moment))


def amount(count: int) -> str:
    """A size in bytes, for people."""
    value, unit = float(count), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if not unit else f"{value:.1f} {_UNITS[unit]}"


def passed(moment: str, now: Now) -> str:
    """How long ago a time was, for people."""
    seconds = now.since(moment)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
