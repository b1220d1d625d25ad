"""What `doctor` says of variables before anything can be loaded."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from bundler.errors import ConfigurationError
from bundler.project.survey import survey
from bundler.refresh.sources import no_dagster
from bundler.setup.doctor import DoctorContext
from bundler.setup.doctor.credentials import credentials
from tests.support.shapes import SHAPES


def test_without_dagster_no_variable_is_called_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SHAPES / "no_pyproject", root := tmp_path / "shop")
    declared = "type: x.Y\nattributes: {a: '{{ env.ACCOUNT_ID }}', b: \"{{ env('API_KEY') }}\"}\n"
    (root / "loans/defs/warehouse/defs.yaml").write_text(declared)
    patient = DoctorContext(survey(root), Path(sys.executable))
    what = no_dagster(patient.project.interpreter.path, patient.project)
    vars(patient)["_looked"] = ConfigurationError(what)
    (finding,) = credentials(patient)
    assert finding.grade == "warn"
    assert "not set: ACCOUNT_ID, API_KEY." in finding.what
    monkeypatch.setenv("ACCOUNT_ID", "a")
    monkeypatch.setenv("API_KEY", "b")
    (finding,) = credentials(patient)
    assert finding.what.startswith("All variables that declarations reference are set (2)")
