"""What commands that change a store say if they change nothing, or do not end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.errors import VerificationFailed
from bundler.store import copying, open_store
from tests.support.storefixtures import Make


@pytest.fixture
def file_url(tmp_path: Path, states: Make) -> str:
    url = f"file://{tmp_path}/store"
    open_store(url).push(states(A=b"1"))
    return url


def test_a_rollback_that_changes_nothing_shows_no_move(
    file_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["store", "rollback", "--at", "1", "--store", file_url]
    assert run(cli, command) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("set 1 of ")
    assert shown.endswith(", unchanged\n")
    assert run(cli, [*command, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["moves"] == []


@pytest.mark.parametrize("command", ["list", "list --all-versions", "pull -o out", "show"])
@pytest.mark.parametrize(("key", "hint"), [("AB", "Did you mean 'A'?"), ("zzz", "")])
def test_a_key_that_the_store_does_not_have_is_an_error(
    command: str, key: str, hint: str, file_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [key] if command == "show" else ["--key", key]
    assert run(cli, ["store", *command.split(), *named, "--store", file_url]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"version of {key}." in shown.err
    assert hint in shown.err


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt, 130), (lambda: SystemExit(143), 143)]
)
def test_an_interrupted_command_does_not_say_that_it_changed_nothing(
    error: Callable[[], BaseException],
    code: int,
    file_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise error()

    monkeypatch.setattr(copying, "copy", interrupted)
    assert run(cli, ["store", "copy", f"{file_url}-2", "--store", file_url]) == code
    said = capsys.readouterr().err
    assert "nothing was published" not in said
    assert "store list --sets" in said


def test_a_store_of_a_newer_version_says_what_to_do(file_url: str, tmp_path: Path) -> None:
    pointer = tmp_path / "store/current.json"
    pointer.write_bytes(pointer.read_bytes().replace(b"current/v1", b"current/v2"))
    with pytest.raises(VerificationFailed) as refused:
        open_store(file_url).current()
    assert "update state-bundler" in refused.value.hint
