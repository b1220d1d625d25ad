"""A run says by name what it left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environments import ROOT

_CONFTEST = "from tests.support.left_out import *\n"
_TESTS = """
import pytest
from tests.support.engine import install

@pytest.fixture
def tool():
    return install("no-such-program", "its-package")

def test_one(tool): pass
def test_two(tool): pass
@pytest.mark.slow
def test_three(): pass
def test_four(): pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_the_summary_names_modules_reasons_and_remedies(
    workers: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow: x\n")
    (tmp_path / "test_parts.py").write_text(_TESTS)
    argv = [
        *(sys.executable, "-m", "pytest", "-q", "-m", "not slow", *workers, "test_parts.py"),
        # Else it would clean up after other runs, too.
        f"--basetemp={tmp_path / 'nested'}",
    ]
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    said = done.stdout.partition(" left out =")[2]
    assert (
        "2 tests: no-such-program is missing (on Debian: sudo apt-get install its-package)\n"
        "  test_parts.py (2)\n"
        "1 test: not selected by -m 'not slow' (make test)\n"
        "  test_parts.py (1)\n"
    ) in said
