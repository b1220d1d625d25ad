"""Listing a folder that serves as a store."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import InputOutputError
from bundler.store.folder import Folder


@pytest.mark.parametrize("bad", ["store", "part", "deep"])
def test_an_unreadable_folder_is_an_input_output_error(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store/part/deep").mkdir(parents=True)
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if os.path.basename(os.fspath(path).rstrip("/")) == bad:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputOutputError, match=bad):
        list(Folder(tmp_path / "store").list(""))


def test_a_file_that_was_removed_meanwhile_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "gone"):
        (tmp_path / name).touch()
    real = Path.stat

    def stat(self: Path, **options: Any) -> os.stat_result:
        if self.name == "gone":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self)
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert [listed.name for listed in Folder(tmp_path).list("")] == ["a"]
