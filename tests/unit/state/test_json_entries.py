"""`bundler.state.json_entries`: one number for the same list, whoever counts."""

from __future__ import annotations

from typing import Any

import pytest

from bundler.state.json_entries import count_entries
from bundler.state.jsondiff import compare, counts

ROWS = [{"id": number, "name": f"row {number}", "tags": ["a", "b"]} for number in range(30)]


@pytest.mark.parametrize(
    ("document", "entries"),
    [
        (ROWS, 30),
        ({"rows": ROWS, "total": 30}, 30),
        ({"data": {"rows": ROWS, "page": {"size": 100}}}, 30),
        ({"rows": ROWS, "others": ROWS[:3]}, 33),
        ({row["name"]: row for row in ROWS}, 30),
        ({"rows_by_id": {row["name"]: row for row in ROWS}}, 30),
        ([[1, 2], [3]], 2),
        ({"prices": {"EUR": 1, "USD": 2}}, 2),
        ({"rows_by_id": {str(number): "{}" for number in range(7)}}, 7),
        ({"name": "x", "version": 3}, 2),
        ([], 0),
        ({}, 0),
        ({"rows": []}, 0),
        ("text", 0),
        (None, 0),
    ],
)
def test_entries_are_the_items_of_the_outermost_collections(document: Any, entries: int) -> None:
    assert count_entries(document) == entries


@pytest.mark.parametrize(
    "wrapped", [lambda rows: rows, lambda rows: {"entries": rows, "version": 1}]
)
def test_diff_counts_the_same_entries(wrapped: Any) -> None:
    before, now = wrapped(ROWS), wrapped(ROWS[:15])
    (count,) = counts(compare(before, now)).values()
    assert count.removed == count_entries(before) - count_entries(now) == 15
