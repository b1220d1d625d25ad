"""What is written is flushed before it gets its name, and then the name is.

The tests replace `os.fsync` by something quick (see `conftest.py`); `make faults` cuts the power.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import InputOutputError
from bundler.state.statedir import StateDir
from bundler.store.folder import Folder
from bundler.system.atomic import replaced_file
from bundler.system.folder import OpenDirectory
from tests.support.statedirs import NEW, OLD, PLACE, publish


def _replace(root: Path, text: str) -> Path:
    with replaced_file(root / "file") as stream:
        stream.write(text.encode())
    return root / "file"


def _write_below(root: Path, text: str) -> Path:
    with OpenDirectory(root) as folder:
        folder.write("file", text.encode())
    return root / "file"


def _write_to_a_store(root: Path, text: str) -> Path:
    Folder(root).write("file", [text.encode()], len(text))
    return root / "file"


def _create_in_a_store(root: Path, text: str) -> Path:
    assert Folder(root).create(text, text.encode())
    return root / text


WRITERS = [_replace, _write_below, _write_to_a_store, _create_in_a_store]


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that have been flushed; a file that was not gets no name."""
    inodes: list[int] = []

    def fsync(descriptor: int) -> None:
        inodes.append(os.fstat(descriptor).st_ino)

    def checked(name: str) -> Callable[..., object]:
        original = getattr(os, name)

        def give_name(old: Any, new: Any, **options: Any) -> object:
            below = options.get("src_dir_fd")
            if new != "holder":  # who holds the lock is of no use after a power cut
                assert os.stat(old, dir_fd=below).st_ino in inodes, (old, new)
            return original(old, new, **options)

        return give_name

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("replace", "link"):
        monkeypatch.setattr(os, name, checked(name))
    return inodes


@pytest.mark.parametrize("write", WRITERS)
def test_first_the_content_then_the_name(
    write: Callable[[Path, str], Path], tmp_path: Path, flushed: list[int]
) -> None:
    path = write(tmp_path, "new")
    assert path.read_text() == "new"
    assert flushed[-1] == tmp_path.stat().st_ino


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("write", WRITERS)
def test_a_flush_that_fails_is_reported(
    write: Callable[[Path, str], Path], at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first the old content is still there; at the second the new one may be."""
    path = write(tmp_path, "old")
    before = sorted(os.listdir(tmp_path))
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises((OSError, InputOutputError), match=os.strerror(errno.EIO)):
        write(tmp_path, "new")
    assert len(calls) == at
    if at == 1:
        assert path.read_text() == "old"
        assert sorted(os.listdir(tmp_path)) == before


def test_all_of_a_published_set_is_flushed(tmp_path: Path, flushed: list[int]) -> None:
    directory = StateDir(tmp_path / "state", PLACE)
    for states in (OLD, NEW):
        publish(directory, states)
        live = [path for path in directory.path.rglob("*") if "@staging" not in path.parts]
        missing = [path for path in live if path.stat().st_ino not in flushed]
        assert not missing
