"""What a program has started ends with it, even if that program has ended first."""

from __future__ import annotations

import os
import select
from pathlib import Path

from bundler.system import process


def test_what_a_program_leaves_behind_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "note"
    os.mkfifo(note)
    reader = os.open(note, os.O_RDONLY | os.O_NONBLOCK)
    try:
        script = f"exec 3>{note}; sleep 60 >/dev/null 2>&1 & exit 4"
        assert process.run(["sh", "-c", script]).exit_code == 4
        assert select.select([reader], [], [], 30)[0]  # its last writer is gone
    finally:
        os.close(reader)
