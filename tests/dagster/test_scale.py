"""The simulation of benchmarks/scale.py, thin: two projects, three keys. About 6 s of CPU."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.environments import ROOT


def test_the_simulation_builds_verifies_and_reports() -> None:
    sizes = ["--projects", "2", "--keys", "3", "--workers", "2", "--milliseconds", "5"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "scale.py", *sizes],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reported = [
        "refreshed and built: .* ms a project",
        "built again, state unchanged: .* ms a project",
        "verified: .* ms a proof",
        "one project of 6 keys refreshed: .* ms a key",
    ]
    for pattern in reported:
        assert re.search(pattern, done.stdout), done.stdout
