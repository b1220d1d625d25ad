"""What a JSON file means, decoded or, if it is too large for that, cut as it is written."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.state import volatile
from bundler.state.volatile import Volatile
from bundler.system import documents

_NAMES = frozenset({"at", "id"})
_texts = st.sampled_from(["at", "id", 'x"at": 1', "\\", '\\"at', '"at":"', "é\n", "{"]) | st.text()
_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _pruned(item)
            for name, item in value.items()
            if name not in _NAMES or isinstance(item, (dict, list))
        }
    return [_pruned(item) for item in value] if isinstance(value, list) else value


def _cut(document: Any, **options: Any) -> bytes:
    raw = json.dumps(document, **options).encode()
    return b"".join(volatile._without(io.BytesIO(raw), _NAMES))


@given(_documents, st.sampled_from([None, 1]), st.sampled_from([1, 7, 1024]))
def test_cutting_removes_the_members_and_nothing_else(
    document: Any, indent: int | None, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(volatile, "_CHUNK_BYTES", chunk)
        left = _cut(document, indent=indent)
    # What is left has the members that stay, and commas where others were.
    tokens = json.dumps(_pruned(document), indent=indent).encode()
    marks = bytes.maketrans(b", \n", b"   ")
    assert left.translate(marks, b", \n") == tokens.translate(marks, b", \n")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 100)
    monkeypatch.setattr(documents, "_TAIL_BYTES", 10)


def _meaning(path: Path, text: str) -> str:
    path.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return volatile.meaning(path, digest, Volatile(frozenset({"at"}), frozenset({"id"})))


@pytest.mark.usefixtures("small")
def test_a_large_document_means_the_same_without_its_volatile_members(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    large = '{"at": %s, "nodes": {"at": {"x": 1}, "name": "%s"}, "id": "%s"}'
    one = _meaning(path, large % ("1.5", "n" * 200, "a"))
    assert one == _meaning(path, large % ("22", "n" * 200, r"a\"b"))
    assert one != _meaning(path, large % ("1.5", "n" * 201, "a"))
    assert one != _meaning(path, (large % ("1.5", "n" * 200, "a")).replace('"x": 1', '"x": 2'))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [20, 200])
def test_what_is_not_a_document_is_digested_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "state"
    one, other = (_meaning(path, f"'{'x' * size}' \"at\": {n}") for n in (1, 2))
    assert one != other


def test_a_document_of_many_small_values_is_too_large_to_decode(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text(f"[{','.join(['{}'] * 300_000)}]")
    assert documents.read_document(path) is None
    assert documents.is_large_document(path)


_LONG = "n" * 200


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "text",
    [
        '{"at": %s}\n' * 20,  # JSON Lines
        f'[{{"at": %s, "name": "{_LONG}"}}, ',  # cut off
        f'[2026-01-01] "at": %s, {_LONG}\n[done]',  # a log
        f'{{"at": %s}} {_LONG} }}',
    ],
)
def test_what_only_begins_like_a_large_document_is_digested_whole(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "state"
    assert _meaning(path, text.replace("%s", "1")) != _meaning(path, text.replace("%s", "2"))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", range(90, 130))
def test_a_large_document_is_one_wherever_its_beginning_ends(tmp_path: Path, size: int) -> None:
    path = tmp_path / "state"
    path.write_text(
        '{"a": 1, "%s": [true, -1.5e3, "\\u00e9\\\\"], "z": {}} \n' % ("n" * (size - 20))
    )
    assert path.stat().st_size > 100
    assert documents.is_large_document(path)


def test_members_are_left_out_at_any_depth(tmp_path: Path) -> None:
    deep = '{"id": %d, "x": ' * 300
    one, other = (
        _meaning(tmp_path / "state", deep.replace("%d", number) + "1" + "}" * 300)
        for number in ("1", "2")
    )
    assert one == other
