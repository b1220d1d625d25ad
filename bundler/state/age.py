"""The maximum age of a state: one rule for `--allow-stale` and for `verify --max-age`."""

from __future__ import annotations

from bundler.state.manifest import KeyRefresh
from bundler.system.times import is_future, seconds_of

_HOUR, _DAY = 3600, 86400


def age_problem(refresh: KeyRefresh | None, most: float, now: float) -> str | None:
    """Why a state is too old, or its age unknown, as a clause; None if it is recent enough.

    most: seconds since it was last confirmed. now: seconds since the epoch.
    """
    confirmed = (refresh.confirmed or refresh.fetched) if refresh else None
    if confirmed is None:
        return "the time of its last confirmation is not recorded"
    age = now - seconds_of(confirmed)
    if is_future(age):
        return f"its state was confirmed in the future, at {confirmed}"
    if age > most:
        return (
            f"its state was last confirmed {span(age)} ago, at {confirmed}; the maximum is "
            f"{span(most)}"
        )
    return None


def span(seconds: float) -> str:
    """A duration for people, with about two digits."""
    for unit, length in (("days", _DAY), ("hours", _HOUR), ("minutes", 60)):
        if seconds >= 2 * length:
            value = seconds / length
            return f"{value:.0f} {unit}" if value >= 10 else f"{round(value, 1):g} {unit}"  # noqa: PLR2004
    return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"
