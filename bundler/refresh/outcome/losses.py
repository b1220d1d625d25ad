"""Finds collections of a state that were lost, although its overall size hides it.

An API that answers one of its lists with nothing leaves a state that is only a little smaller: the
dashboards are there, their owners are not. A *collection* is everything in the members of one name,
throughout a JSON document: with ``{"books": {"a": {"tags": [1, 2]}, "b": {"tags": [3]}}}``
``books`` has two entries, ``tags`` three. A name that identifies one thing (an id) disappears with
that thing, so only names that still exist are compared.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

# A user may well have removed fewer.
_FEWEST_FOR_NOTHING = 5
_FEWEST_FOR_SHRUNK = 20
_BEGIN_JSON = ("{", "[")


class Loss(msgspec.Struct, frozen=True):
    """A collection that had more entries. before, now: entries."""

    name: str
    before: int
    now: int


def losses(before: Any, now: Any, share: float) -> tuple[Loss, ...]:
    """The collections that have shrunk below a share of their size, the greatest loss first."""
    if not share:
        return ()
    held, holds = census(before), census(now)
    found = [
        Loss(name, count, holds[name])
        for name, count in held.items()
        if name in holds and _is_lost(count, holds[name], share)
    ]
    whole = {loss.name for loss in found}
    found = [loss for loss in found if loss.name.removeprefix(".") not in whole - {loss.name}]
    return tuple(sorted(found, key=lambda loss: (loss.now - loss.before, loss.name)))


def _is_lost(before: int, now: int, share: float) -> bool:
    if now == 0:
        return before >= _FEWEST_FOR_NOTHING
    return before >= _FEWEST_FOR_SHRUNK and now < before * share


def census(document: Any) -> Counter[str]:
    """How many entries the members of each name have together; 0 if they exist, but are empty.

    JSON inside strings counts, too (Looker's state is made of it), and entries of Dagster's form
    for sets and mappings, ``{"__set__": […]}``, count for the name outside.
    """
    found: Counter[str] = Counter()
    top = _unwrapped(document)
    if isinstance(top, dict):  # separately, too: members further down may have the same name
        for name, value in top.items():
            inner = _unwrapped(value)
            found[f".{name}"] = len(inner) if isinstance(inner, (dict, list)) else 0
    pending: list[tuple[str, Any]] = [("", document)]
    while pending:
        name, value = pending.pop()
        value = _unwrapped(value)
        if isinstance(value, dict):
            found[name] += len(value)
            pending += _holding(value)
        elif isinstance(value, list):
            found[name] += len(value)
            for item in map(_unwrapped, value):
                if isinstance(item, dict):
                    pending += _holding(item)
                elif isinstance(item, list):
                    pending.append((name, item))
    return found


def _holding(members: dict[str, Any]) -> list[tuple[str, Any]]:
    """The values with contents, possibly as JSON in a string; most have none."""
    return [
        (name, value)
        for name, value in members.items()
        if isinstance(value, (dict, list))
        or (isinstance(value, str) and value.startswith(_BEGIN_JSON))
    ]


def _unwrapped(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_BEGIN_JSON):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return value
    if isinstance(value, dict) and len(value) == 1:
        name, inner = next(iter(value.items()))
        if name.startswith("__") and isinstance(inner, (dict, list)):
            return inner
    return value
