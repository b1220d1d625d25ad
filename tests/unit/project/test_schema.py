from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.project.schema import FOLDER, generated, render


@pytest.mark.parametrize("name", sorted(generated()))
def test_the_file_is_what_the_model_says(name: str) -> None:
    assert (FOLDER / name).read_text() == render(generated()[name]), "run: make docs"


def test_no_other_schema_exists() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == set(generated())


def _validate(text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "pyproject.toml"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "validate_pyproject", file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_validate_pyproject_knows_our_table(tmp_path: Path) -> None:
    good = '[tool.state-bundler]\njobs = 3\n[tool.state-bundler.keys."A*"]\ntimeout = "5m"\n'
    done = _validate(good, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    bad = _validate('[tool.state-bundler]\ntimeout = "soon"\n', tmp_path)
    assert bad.returncode == 1
    assert "tool.state-bundler.timeout" in bad.stderr + bad.stdout


def test_the_schemas_are_valid_schemas() -> None:
    from jsonschema import Draft7Validator, Draft202012Validator

    for name in generated():
        schema = json.loads((FOLDER / name).read_text())
        draft = Draft7Validator if "draft-07" in schema["$schema"] else Draft202012Validator
        draft.check_schema(schema)
