"""Several state directories are published as one set, whatever interrupts it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from bundler.errors import InputOutputError
from bundler.state.statedir import Ready, StateDir, publish_together
from tests.support.in_memory import in_memory
from tests.support.statedirs import (
    NEW,
    NOTHING_FETCHED,
    OLD,
    PLACE,
    Died,
    failure_of,
    fill,
    interrupt,
    publish,
    snapshot,
)

_FOLDERS = ("first/state", "other/deeper/state")
_FEW = {"a": {"state": "new a"}, "c": {"state": "new c"}}


def _directories(root: Path) -> list[StateDir]:
    return [StateDir(root / folder, PLACE) for folder in _FOLDERS]


def _publish_all(root: Path, states: dict[str, dict[str, str]]) -> None:
    with ExitStack() as stack:
        publish_together([_ready(stack, directory, states) for directory in _directories(root)])


def _ready(stack: ExitStack, directory: StateDir, states: dict[str, dict[str, str]]) -> Ready:
    staging = stack.enter_context(directory.staging())
    return staging.ready(fill(staging, states), (), NOTHING_FETCHED)


def _generation(directory: StateDir, whole: dict[str, dict[str, bytes]]) -> str:
    found = snapshot(directory.path)
    return next(name for name, files in whole.items() if files == found)


def test_both_are_published_and_nothing_is_left(tmp_path: Path) -> None:
    _publish_all(tmp_path, OLD)
    _publish_all(tmp_path, NEW)
    for directory in _directories(tmp_path):
        assert (directory.path / "a/state").read_text() == "new a"
        # Some versions of filelock remove the file.
        assert set(os.listdir(directory.path / "@staging")) - {"lock"} == {"holder"}


@pytest.fixture
def quick() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        pytest.param("kill", 0, marks=pytest.mark.slow),
        pytest.param("kill", 1, marks=pytest.mark.slow),
        pytest.param("ENOSPC", 1, marks=pytest.mark.slow),
    ],
)
def test_an_interruption_anywhere_leaves_all_old_or_all_new(
    quick: Path, kind: str, asked: int
) -> None:
    """asked: which of the directories the next command is about."""
    whole = {}
    for name, states in (("old", OLD), ("new", _FEW)):
        publish(StateDir(quick / name, PLACE), states)
        whole[name] = snapshot(quick / name)
    _publish_all(quick / "template", OLD)
    at, outcomes = 0, set()
    while True:
        at += 1
        root = quick / "now"
        shutil.copytree(quick / "template", root)
        with pytest.MonkeyPatch.context() as patch:
            count = interrupt(patch, at, lambda: failure_of(kind))
            with suppress(Died, InputOutputError, OSError):  # OSError: the test's own writes
                _publish_all(root, _FEW)
        if count[0] < at:
            break
        directories = _directories(root)
        for directory in (directories[asked], directories[1 - asked]):
            with directory.lock():
                pass
            assert directory.read() is not None
        found = {_generation(directory, whole) for directory in directories}
        assert len(found) == 1, at
        outcomes |= found
        for directory in directories:
            with directory.staging():
                pass
            assert set(os.listdir(directory.path / "@staging")) - {"lock"} == {"holder"}, at
        shutil.rmtree(root)
    assert at > 40
    assert outcomes == {"old", "new"}


def test_the_first_finishes_the_others_even_if_one_is_missing(tmp_path: Path) -> None:
    _publish_all(tmp_path, OLD)
    first, other = _directories(tmp_path)
    with ExitStack() as stack:
        ready = [_ready(stack, directory, _FEW) for directory in (first, other)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bundler.state.publishing.Publisher.carry_out", _die)
            with pytest.raises(Died):
                publish_together(ready)
    shutil.copytree(tmp_path, tmp_path.parent / "moved")
    with first.lock():
        pass
    assert (other.path / "a/state").read_text() == "new a"
    moved, gone = _directories(tmp_path.parent / "moved")
    shutil.rmtree(gone.path)
    with moved.lock():
        pass
    assert (moved.path / "a/state").read_text() == "new a"
    assert not gone.path.exists()


def _die(*_: object) -> None:
    raise Died
