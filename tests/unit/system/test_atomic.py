"""Messages about a file that has a temporary name."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bundler.errors import io_failure
from bundler.system.atomic import temporary_file, temporary_folder


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_message_names_the_file_as_the_user_does(tmp_path: Path, *, is_folder: bool) -> None:
    path = tmp_path / "app.pex"
    if is_folder:
        with temporary_folder(path) as made:
            name = str(made / "part")
    else:
        with temporary_file(path) as (_, temporary):
            name = str(temporary)
    error = io_failure(OSError(errno.ENOSPC, "full", name))
    assert error.what == f"{path}{'/part' if is_folder else ''}: full."
