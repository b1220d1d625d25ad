"""A program that runs on the user's terminal, and one whose lines are passed on."""

from __future__ import annotations

from pathlib import Path

from bundler.system import process

_PRINTS = ["sh", "-c", "echo data; echo one >&2; printf 'two\\n\\377' >&2; exit 3"]


def test_each_line_that_is_printed_is_passed_on(tmp_path: Path) -> None:
    lines: list[str] = []
    with (tmp_path / "data").open("wb") as data:
        assert process.pass_through(_PRINTS, stdout=data.fileno(), said=lines.append) == 3
    assert lines == ["one", "two", "\ufffd"]
    assert (tmp_path / "data").read_text() == "data\n"
    assert process.pass_through(_PRINTS, said=lines.append) == 3
    assert lines[3:] == ["data", "one", "two", "\ufffd"]


def test_a_line_is_passed_on_while_the_program_runs(tmp_path: Path) -> None:
    go = tmp_path / "go"
    argv = ["sh", "-c", f"echo ready; until [ -e {go} ]; do sleep 0.1; done"]
    assert process.pass_through(argv, said=lambda _: go.touch()) == 0
