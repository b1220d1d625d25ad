"""A directory that cannot be read is an error, never a directory without files."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from bundler.system.walking import files_below, walk
from tests.support.environments import ROOT

# Those that only look for something, or remove what they made themselves.
_MAY_SKIP = {
    "bundler/system/walking.py",
    "bundler/worker/dagster_worker.py",  # runs alone, and only looks for what to warn about
    "bundler/dagster_health.py",  # looks for a state directory; none is a failed check
    "bundler/guard/durable.py",  # rmdir fails for a directory that was left out
    "bundler/artifacts/image/engine/context.py",  # looks for a dbt project to check
    "bundler/project/classic_dbt.py",  # where it only looks for a dbt project
    "bundler/system/credential_files.py",  # what cannot be read cannot be packed either
    "bundler/refresh/watching.py",  # only shows how much has been fetched
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``good/file``, and ``bad/file`` in a directory that answers with EIO."""
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if os.path.basename(path) == "bad":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return tmp_path


def test_a_directory_that_cannot_be_read_is_an_error(tree: Path) -> None:
    assert sum(len(names) for _, _, names in os.walk(tree)) == 1  # what must not happen
    with pytest.raises(OSError, match="Input/output error"):
        list(walk(tree))
    with pytest.raises(OSError, match="bad"):
        list(files_below(tree))
    with pytest.raises(OSError, match="bad"):
        list(walk(tree, missing_ok=True))


def test_a_missing_directory_is_an_error_unless_it_may_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(walk(tmp_path / "none"))
    assert list(walk(tmp_path / "none", missing_ok=True)) == []
    (tmp_path / "file").touch()
    assert list(walk(tmp_path / "file")) == []


def test_the_files_come_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b/1", "a", "b/0", "c/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert found == ["a", "b/0", "b/1", "c/d/e"]


def test_no_other_walk_skips_a_directory() -> None:
    skips = re.compile(r"os\.walk\(|\.rglob\(\"\*")
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "bundler").rglob("*.py")
        if skips.search(path.read_text())
    }
    assert found == _MAY_SKIP
