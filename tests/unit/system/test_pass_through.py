"""A program on the user's terminal that takes long and says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler.system import process


def test_a_note_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert process.PATIENCE_SECONDS < 10
    monkeypatch.setattr(process, "PATIENCE_SECONDS", 0.1)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if len(notes) == 2:  # what it waits for
            (tmp_path / "go").touch()

    argv = ["sh", "-c", f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; exit 3"]
    assert process.pass_through(argv, still_running=note) == 3
    assert notes[:2] == ["sh is still running after 0.1 s.", "sh is still running after 0.2 s."]
