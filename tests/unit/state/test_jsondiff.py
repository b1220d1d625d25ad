from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.state.jsondiff import JsonChange, compare, summary

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "a", "b", "id"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "name", "x", "y"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_JSON, _JSON)
def test_changes_are_found_just_where_documents_differ(one: Any, other: Any) -> None:
    def encoded(value: Any) -> bytes:
        return msgspec.json.encode(value, order="sorted")

    assert bool(compare(one, other)) == (encoded(one) != encoded(other))


@given(_JSON, _JSON)
def test_what_one_side_gained_the_other_lost(one: Any, other: Any) -> None:
    there, back = compare(one, other), compare(other, one)
    added = [change.kind for change in there].count("added")
    assert added == [change.kind for change in back].count("removed")


def _connectors(*names: str, **extra: Any) -> dict[str, Any]:
    items = {
        f"id{number}": {"id": f"id{number}", "name": name, "tables": [{"name": "t"}]}
        for number, name in enumerate(names)
    }
    return {"connectors_by_id": items, **extra}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (_connectors("a"), _connectors("a", "b", "c"), "+2 connectors"),
        (_connectors("a", "b"), _connectors("a"), "-1 connector"),
        (_connectors("a"), _connectors("z"), "1 connector renamed"),
        ([{"id": 1}, {"id": 2}], [{"id": 2}, {"id": 3}, {"id": 4}], "+2 entries, -1 entry"),
        (
            {"tables": [{"name": "a", "n": 1}]},
            {"tables": [{"name": "b", "n": 1}]},
            "1 table renamed",
        ),
        ({"tables": ["a", "b"]}, {"tables": ["b"]}, "-1 table"),
        ({"version": 1}, {"version": 2, "x": None}, "2 members changed"),
        ({"a": True}, {"a": 1}, "1 member changed"),
        (
            {"categories": [{"id": 1, "x": 1}]},
            {"categories": [{"id": 1, "x": 2}]},
            "1 category changed",
        ),
    ],
)
def test_the_summary_counts_in_the_documents_words(before: Any, after: Any, expected: str) -> None:
    assert summary(compare(before, after)) == expected


def test_items_are_matched_by_identity_in_any_position() -> None:
    before = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]
    after = [{"id": 2, "v": "B"}, {"id": 1, "v": "a"}]
    changed, reordered = sorted(compare(before, after), key=lambda change: change.kind)
    assert (changed.name, changed.what) == ("2", "entries")
    assert changed.details == (JsonChange("changed", "v", before='"b"', after='"B"'),)
    assert reordered.kind == "reordered"


def test_a_rename_keeps_what_else_changed_inside() -> None:
    after = _connectors("z")
    after["connectors_by_id"]["id0"]["tables"].append({"name": "u"})
    (change,) = compare(_connectors("a"), after)
    assert (change.kind, change.before, change.after) == ("renamed", "a", "z")
    (table,) = change.details
    assert (table.kind, table.what, table.name) == ("added", "tables", "u")


def test_volatile_members_are_distinguished_at_every_depth() -> None:
    before = {"at": 1, "items": [{"id": 1, "at": 1}]}
    after = {"at": 2, "items": [{"id": 1, "at": 2}]}
    changes = compare(before, after, frozenset({"at"}))
    assert len(changes) == 2
    assert all(change.volatile for change in changes)
    assert summary(changes) == ""


def test_text_of_several_lines_shows_the_lines() -> None:
    (change,) = compare({"sql": "select 1\nfrom a"}, {"sql": "select 2\nfrom a"})
    assert [(line.kind, line.name) for line in change.details] == [
        ("removed", "select 1"),
        ("added", "select 2"),
    ]


@pytest.mark.slow
def test_ten_megabytes() -> None:
    items = [
        {"id": n, "name": f"t{n}", "columns": [{"name": f"c{m}", "type": "text"} for m in range(8)]}
        for n in range(40_000)
    ]
    raw = msgspec.json.encode({"tables": items})
    assert len(raw) > 10_000_000
    items[7]["columns"][3]["type"] = "int"  # type: ignore[index]
    items.pop(99)
    before = msgspec.json.decode(raw)
    changes = compare(before, {"tables": items})
    assert summary(changes) == "-1 table, 1 table changed, 1 column changed"
