"""Messages about a file that has a temporary name."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bundler.errors import VerificationFailed, io_failure
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


def test_an_error_about_what_a_folder_gets_names_it_as_the_user_does(tmp_path: Path) -> None:
    path = tmp_path / "app.pex"

    def fail() -> None:
        with temporary_folder(path) as made:
            error = VerificationFailed(f"{made}/app.pex: no.", hint=f"See {made}/app.pex.")
            error.details = (("rule", (f"{made}/app.pex/x",)),)
            raise error

    with pytest.raises(VerificationFailed) as raised:
        fail()
    assert (raised.value.what, raised.value.hint) == (f"{path}: no.", f"See {path}.")
    assert raised.value.details == (("rule", (f"{path}/x",)),)
