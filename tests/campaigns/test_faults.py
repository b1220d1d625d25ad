"""Thin versions of the fault campaigns (`make faults`): a few points, and no power cuts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.environments import ROOT


@pytest.mark.parametrize(
    ("campaign", "arguments", "points"),
    [
        ("fault_campaign", ["--points", "3"], 15),
        ("artifact_faults", ["--points", "1"], 40),
    ],
)
def test_what_is_broken_anywhere_is_old_or_new(
    campaign: str, arguments: list[str], points: int
) -> None:
    # In its own process: it forks, which is safe only with one thread.
    module = f"tests.campaigns.{campaign}"
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--no-power-cuts"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| **all** | | **{points}** |" in done.stdout
