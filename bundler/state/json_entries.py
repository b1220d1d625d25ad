"""How many entries a JSON document has."""

from __future__ import annotations

from typing import Any


def count_entries(document: Any) -> int:
    """Items of arrays and members of objects, at every depth."""
    total = 0
    level = [document]
    while level:
        entries: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                entries += value.values()
            elif isinstance(value, list):
                entries += value
        total += len(entries)
        level = [entry for entry in entries if isinstance(entry, (dict, list))]
    return total
