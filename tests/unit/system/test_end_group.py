"""What a program has started ends with it, even if that program has ended first."""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path

import pytest

from bundler.system import process


def test_processes_that_a_program_leaves_behind_are_ended(tmp_path: Path) -> None:
    note = tmp_path / "note"
    os.mkfifo(note)
    reader = os.open(note, os.O_RDONLY | os.O_NONBLOCK)
    try:
        script = f"exec 3>{note}; sleep 60 >/dev/null 2>&1 & exit 4"
        assert process.run(["sh", "-c", script]).exit_code == 4
        assert select.select([reader], [], [], 30)[0]  # its last writer has ended
    finally:
        os.close(reader)


def test_a_program_in_a_thread_ends_if_its_task_is_cancelled(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "note")

    async def cancel() -> None:
        argv = ["sh", "-c", 'exec 3>"$0"; exec sleep 3600', str(tmp_path / "note")]
        work = asyncio.create_task(process.in_thread(process.run, argv))
        reader = await asyncio.to_thread(open, tmp_path / "note")  # until the program has started
        with reader:
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert not await asyncio.to_thread(reader.read)  # its last writer has ended

    asyncio.run(cancel())
