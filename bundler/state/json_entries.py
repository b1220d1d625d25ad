"""The entries of a JSON document: what `min-entries`, `refresh`, `verify` and `diff` count."""

from __future__ import annotations

from typing import Any

from bundler.state.jsondiff import is_collection


def count_entries(document: Any) -> int:
    """The items of its outermost collections: lists, and objects that hold records of one shape.

    A document without any has as many entries as it has values that hold no others.
    """
    entries = leaves = 0
    pending: list[tuple[str, Any]] = [("", document)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, list) or (
            isinstance(value, dict) and is_collection(value, value, name)
        ):
            entries += len(value)
        elif isinstance(value, dict):
            pending += value.items()
        else:
            leaves += 1
    return entries or (leaves if isinstance(document, dict) else 0)


def count_values(document: Any) -> int:
    """Items of arrays and members of objects, at every depth."""
    total = 0
    level = [document]
    while level:
        values: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                values += value.values()
            elif isinstance(value, list):
                values += value
        total += len(values)
        level = [value for value in values if isinstance(value, (dict, list))]
    return total
