"""A thin version of the fault campaign (`make faults`): some of its points, without power cuts."""

from __future__ import annotations

import subprocess
import sys

from tests.support.environments import ROOT


def test_a_refresh_that_is_broken_anywhere_leaves_one_whole_set() -> None:
    # A process of its own: it forks, which is safe only with one thread.
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.campaigns.fault_campaign",
            "--points",
            "3",
            "--no-power-cuts",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| **all** | | **15** |" in done.stdout
