"""`bundler.state.json_entries`: one number for the same list in every reader."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.state import json_entries
from bundler.state.json_entries import (
    JsonSize,
    TooLargeToCountError,
    entries_in,
    is_empty,
    size_of,
)
from bundler.state.jsondiff import compare, counts, is_collection
from bundler.state.volatile import Volatile


def count_entries(document: Any) -> int:
    """The entries of a decoded document, as a reference for those of its text."""
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
    assert entries_in(_stream(document)) == count_entries(document) == entries


@pytest.mark.parametrize(
    "wrapped", [lambda rows: rows, lambda rows: {"entries": rows, "version": 1}]
)
def test_diff_counts_the_same_entries(wrapped: Any) -> None:
    before, now = wrapped(ROWS), wrapped(ROWS[:15])
    (count,) = counts(compare(before, now)).values()
    assert count.removed == count_entries(before) - count_entries(now) == 15


_texts = st.sampled_from(["id", "rows", 'a"], {', "\\", '\\"', "[{,", "é\n", ""]) | st.text(
    max_size=4
)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts
)
_records = st.dictionaries(
    _texts,
    st.fixed_dictionaries({"id": _texts}, optional={"n": _scalars, "o": st.just({"x": 1})}),
    max_size=4,
)
_documents = st.recursive(
    _scalars | _records,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)
_nothing = st.recursive(
    st.sampled_from([None, "", 0, [], {}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=9,
)
_indents = st.sampled_from([None, 0, 2])


def _stream(document: Any, indent: int | None = None) -> io.BytesIO:
    return io.BytesIO(json.dumps(document, indent=indent).encode())


@given(_documents, _indents)
def test_a_document_has_the_same_entries_without_being_decoded(
    document: Any, indent: int | None
) -> None:
    assert entries_in(_stream(document, indent)) == count_entries(document)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: {"rows": [{"id": n, "n": "x"} for n in range(120_000)]},
        lambda: {str(n): {"id": n, "tags": {"x": {}}} for n in range(50_000)},
        lambda: {"rows": [[] for _ in range(100_000)]},
        lambda: [[{"id": n} for n in range(3)] for _ in range(20_000)],
        lambda: [{"a": '"},{' * 100, "b": list(map(str, range(100)))}] * 500,
        lambda: list(range(300_000)),
        lambda: ["[,]"] * 20_000,
    ],
    ids=["rows", "objects by key", "empty rows", "lists", "long rows", "numbers", "texts"],
)
def test_the_entries_of_large_documents(make: Callable[[], Any]) -> None:
    document = make()
    assert entries_in(_stream(document)) == count_entries(document)


@pytest.mark.parametrize(
    "document", [{str(n): n for n in range(30)}, {"a": {str(n): [n] for n in range(30)}, "b": 1}]
)
def test_an_object_of_too_many_members_is_not_counted(
    document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_entries, "_MOST_MEMBERS", 20)
    with pytest.raises(TooLargeToCountError):
        entries_in(_stream(document))


def test_a_document_of_too_many_bytes_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_entries, "_MOST_BYTES", 20)
    with pytest.raises(TooLargeToCountError):
        entries_in(_stream(list(range(30))))
    assert entries_in(io.BytesIO(b"[1] is a footnote, and this is a text")) is None


def _is_empty(text: bytes) -> bool:
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        return is_empty(Path(file.name))


@pytest.mark.parametrize("text", [b" ", b"\r\n", b"\xef\xbb\xbf", "\n".encode("utf-16")])
def test_white_space_is_nothing(text: bytes) -> None:
    assert entries_in(io.BytesIO(text)) is None
    assert _is_empty(text)


@pytest.mark.parametrize("text", [b"", b"[1", b"[] []", b"{}\n{}", b"x", b"[1,]", b"[}"])
def test_what_is_not_json_has_no_entries_and_is_not_empty(text: bytes) -> None:
    assert entries_in(io.BytesIO(text)) is None
    assert not _is_empty(text)


def _is_nothing(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, (dict, list)) and _is_nothing(item) for item in value)
    if isinstance(value, dict):
        inner = [item for item in value.values() if isinstance(item, (dict, list))]
        return not value or (bool(inner) and all(map(_is_nothing, inner)))
    return value is None or value == ""


@given(_documents | _nothing, _indents)
def test_a_document_is_empty_if_nothing_is_in_it_at_any_depth(
    document: Any, indent: int | None
) -> None:
    assert _is_empty(_stream(document, indent).getvalue()) == _is_nothing(document)


_VOLATILE = Volatile(frozenset({"id", ""}), frozenset({"rows"}))


@given(_documents | _nothing, _indents)
def test_volatile_members_neither_count_nor_fill_a_document(
    document: Any, indent: int | None
) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(_stream(document, indent).getvalue())
        file.flush()
        empty, size = (of(Path(file.name), _VOLATILE) for of in (is_empty, size_of))
    _VOLATILE.drop(document)
    assert empty is _is_nothing(document)
    assert isinstance(size, JsonSize)
    assert size.entries == count_entries(document)


@pytest.mark.parametrize("depth", [1, 300, 600])
def test_depth_makes_no_difference(depth: int) -> None:
    for inner, empty in (b"", True), (b"1", False):
        text = b"[" * depth + inner + b"]" * depth
        assert _is_empty(text) is empty
