"""No command takes more memory with a larger state: `benchmarks/memory.py`, with a small one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.environments import ROOT

# A file of this size that is read as a whole exceeds the limit of 150.
_MEGABYTES = "160"


@pytest.mark.timeout(1800)
def test_each_command_stays_below_the_limit() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/memory.py", _MEGABYTES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") > 25
