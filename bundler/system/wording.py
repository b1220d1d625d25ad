"""Wording for numbers, sizes and suggestions."""

from __future__ import annotations

# Not from `typing`, whose import takes longer than a guard run.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_STEP = 1024


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 state``, ``2 states``. plural: of a noun that takes no s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def listed(names: Sequence[str], most: int, count: int | None = None) -> str:
    """The first names, and how many more there are. count: of all, if only some are known."""
    more = (len(names) if count is None else count) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def size(count: int) -> str:
    """A human-readable size in bytes."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < _STEP:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _STEP
    return f"{value:.1f} TiB"


def nearest(given: str, known: Iterable[str], similarity: float = 0.6) -> str | None:
    """What the user may have meant; None if nothing is similar enough."""
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(given.lower(), by_lower, 1, similarity)
    return by_lower[near[0]] if near else None
