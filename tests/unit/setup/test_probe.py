"""Which interpreter can build a project: decided by its own version, not by ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bundler.setup.doctor.probe import _BuildSystem


@pytest.mark.parametrize("marker", ["python_version == '3.7'", "implementation_name == 'other'"])
def test_a_marker_is_that_of_the_interpreter_that_builds(marker: str, tmp_path: Path) -> None:
    system = _BuildSystem("", (f"no-such-backend; {marker}",))
    assert system.problem_in(Path(sys.executable)) is None
    other = tmp_path / "python"
    answer = '[true, {"no-such-backend": null, "setuptools": "80", "wheel": null}, '
    answer += '{"python_version": "3.7", "implementation_name": "other"}]'
    other.write_text(f"#!/bin/sh\necho '{answer}'\n")
    other.chmod(0o755)
    assert system.problem_in(other) == f"no-such-backend is not installed in {other}"
