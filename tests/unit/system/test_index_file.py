"""git's index as bytes, where git says nothing itself: no checksum, large files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundler.system import index_file
from bundler.system.index_file import RawIndex
from tests.support.workdir import WorkDir


def is_whole(index: Path) -> bool:
    with RawIndex(os.fsencode(index)) as raw:
        return raw.is_whole()


@pytest.mark.parametrize("version", [2, 3, 4])
def test_without_a_checksum(wd: WorkDir, version: int) -> None:
    """``index.skipHash`` leaves zeros: the structure alone must tell."""
    for number in range(30):
        wd.write(f"directory-{number % 4}/x{'y' * number}")
    wd.commit()
    wd.write("intended")
    wd("git add -N intended")  # an entry with extended flags
    wd(["git", "update-index", "--index-version", str(version), "--force-write-index"])
    index = wd.path / ".git/index"
    whole = index.read_bytes()
    assert is_whole(index)
    unsigned = whole[:-20] + bytes(20)
    index.write_bytes(unsigned)
    assert is_whole(index)
    assert wd.guard("--staged").code == 0
    for size in range(0, len(whole), 37):
        for tail in (b"", bytes(20)):
            index.write_bytes(unsigned[:size] + tail)
            if index.read_bytes() != unsigned:
                assert not is_whole(index), (size, tail)


def test_large(wd: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a size the checksum takes too long: the end must be where the extensions end."""
    for number in range(50):
        wd.write(f"TREE/{number}/TREE")
    wd.commit()
    monkeypatch.setattr(index_file, "_CHECKED_BYTES", 64)
    index = wd.path / ".git/index"
    whole = index.read_bytes()
    assert is_whole(index)
    for size in range(12, len(whole), 41):
        index.write_bytes(whole[:size])
        assert not is_whole(index), size


def test_large_directories(wd: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cached tree speaks for the entries while it is whole, and for nothing else."""
    monkeypatch.setattr(index_file, "_CHECKED_BYTES", 64)

    def holds(name: str) -> bool:
        with RawIndex(os.fsencode(wd.path / ".git/index")) as raw:
            return raw.holds_below(name.encode())

    wd.write("a/b/file")
    wd.write("c")
    wd("git add -A")
    assert holds("b")  # before git has written any tree
    wd.commit()
    assert holds("b")
    assert not holds("c")
    wd.write("a/state/file")
    wd("git add -A")
    assert holds("state")  # not in the cached tree, which is out of date
    wd("git write-tree")
    assert holds("state")
    wd("git rm -rq --cached a/state")
    assert not holds("state")
    wd("git add -N a/state/file")
    assert holds("state")
    wd("git write-tree")
    assert holds("state")


@pytest.mark.parametrize("by_libc_from", [0, 1 << 24])
def test_windows_overlap(wd: WorkDir, monkeypatch: pytest.MonkeyPatch, by_libc_from: int) -> None:
    """A path is found wherever the border of a window falls, by whichever search."""
    monkeypatch.setattr(index_file, "_OVERLAP_BYTES", 300)
    monkeypatch.setattr(index_file, "_BY_LIBC_BYTES", by_libc_from)
    for number in range(20):
        wd.write(f"{'d' * (number * 7)}-{number}/pyproject.toml", "")
    wd("git add -A")
    index = os.fsencode(wd.path / ".git/index")
    listed = set(map(os.fsencode, wd("git ls-files -z").split("\0")[:-1]))
    for window in range(301, 1400, 61):
        monkeypatch.setattr(index_file, "_WINDOW_BYTES", window)
        with RawIndex(index) as raw:
            assert raw.entries_ending_in(b"pyproject.toml").keys() == listed
            assert all(raw.holds(path) for path in listed)
            assert not raw.holds(b"nowhere")
            assert raw.is_whole()
        with RawIndex(index) as raw:
            raw.prepare(b"ddd-1", [b"pyproject.toml\0", b"nowhere"])
            assert raw.holds_below(b"ddd-1")
            assert raw.entries_ending_in(b"pyproject.toml").keys() == listed
            assert not raw.holds(b"nowhere")


def test_what_is_not_an_index(tmp_path: Path) -> None:
    for content in (b"", b"DIRC", b"x" * 200, b"DIRC" + bytes(60), b"DIRC\0\0\0\2\xff\xff\xff\xff"):
        (tmp_path / "index").write_bytes(content + bytes(20))
        assert not is_whole(tmp_path / "index")
