"""Copies from one store to another."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bundler.state.manifest import KeyRefresh
from bundler.store import Store, checking, copying, open_store
from bundler.store.pushing import NewState
from bundler.store.records import Current
from tests.support.storefixtures import Make, confirmed, contents

MEBIBYTE = 1024 * 1024


def test_copy(new_url: Callable[[], str], states: Make, tmp_path: Path) -> None:
    source, target = open_store(new_url()), open_store(new_url())
    old = source.push(states(A=b"1", B=os.urandom(9 * MEBIBYTE)))
    refresh = KeyRefresh("A", confirmed="2026-01-02T00:00:00Z")
    (new,) = states(A=b"2")
    for made in (None, refresh):
        source.push([NewState(new.state, new.directory, refresh=made)])
    copied = copying.copy(source, target)
    assert len(copied.versions) == 2
    assert confirmed(target) == refresh.confirmed
    assert contents(target, tmp_path) == contents(source, tmp_path)
    assert copying.copy(source, target).versions == ()
    source.remove(["B"])
    again = copying.copy(source, target, history=True)
    assert again.versions == (old.versions["A"],)
    assert set(contents(target, tmp_path)) == {"A"}, "what was removed is removed there, too"
    assert contents(target, tmp_path) == contents(source, tmp_path)
    assert not checking.check(target).problems


def test_a_repeated_copy_of_the_history_takes_no_key_back(tmp_path: Path, states: Make) -> None:
    source, target = (open_store(f"file://{tmp_path}/{name}") for name in ("source", "target"))
    for value in (b"1", b"2"):
        source.push(states(A=value, B=b"x"))
    target.push(states(C=b"of the target itself"))
    assert copying.copy(source, target, history=True).number == 3
    assert copying.copy(source, target, history=True).number == 3
    source.remove(["B"])
    source.push(states(A=b"3"))
    copied = copying.copy(source, target, history=True)
    assert (copied.number, [move.key for move in copied.moves]) == (5, ["B", "A"])


def test_the_history_can_be_copied_after_what_is_current(tmp_path: Path, states: Make) -> None:
    source, target = (open_store(f"file://{tmp_path}/{name}") for name in ("source", "target"))
    for value in (b"1", b"2", b"3"):
        source.push(states(A=value))
    copying.copy(source, target)
    older = copying.copy(source, target, history=True)
    assert len(older.versions) == 2
    assert [move.after for move in older.moves] == [
        move.after for change in reversed(list(source.history())) for move in change.moves
    ]


@pytest.mark.parametrize("before", ["nothing", "current", "history"])
@pytest.mark.parametrize("made", range(5))
def test_an_interrupted_copy_of_the_history_is_continued(
    before: str, made: int, tmp_path: Path, states: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a version came back, so that two sets have the same."""
    source, target = (open_store(f"file://{tmp_path}/{name}") for name in ("source", "target"))
    for value in (b"1", b"2"):
        source.push(states(A=value))
    if before != "nothing":
        copying.copy(source, target, history=before == "history")
    source.rollback()
    source.push(states(B=b"3"))
    adopt, left = Store.adopt, iter(range(made))

    def dying(self: Store, *arguments: Any) -> Current:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return adopt(self, *arguments)

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(Store, "adopt", dying)
        copying.copy(source, target, history=True)
    copying.copy(source, target, history=True)
    number = copying.copy(source, target, history=True).number
    wanted = [move.after for change in source.history() for move in change.moves]
    there = [move.after for change in target.history() for move in change.moves]
    assert there[: len(wanted)] == wanted
    assert number == len(there) == len(wanted) + (before == "current")


def test_a_copy_goes_forward_again_after_a_rollback_of_the_target(
    tmp_path: Path, states: Make
) -> None:
    source, target = (open_store(f"file://{tmp_path}/{name}") for name in ("source", "target"))
    for value in (b"1", b"2", b"3"):
        source.push(states(A=value))
    copying.copy(source, target, history=True)
    target.rollback()
    assert copying.copy(source, target, history=True).number == 5
    assert target.current_ids() == source.current_ids()
