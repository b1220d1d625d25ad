"""`bundler.refresh.dotenv` reads what python-dotenv, which Dagster uses, reads."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bundler.errors import ConfigurationError
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh import dotenv
from bundler.refresh.run import refresh
from tests.support.environments import ROOT, python_of

SAMPLE = """\
# a comment
PLAIN=value
SPACED = around it
export EXPORTED=yes
EMPTY=
COMMENTED=value # not this
HASH=va#lue
SINGLE='as $it ${PLAIN} is # here'
DOUBLE="with \\"quotes\\", a\\nline and ${PLAIN}"
LINES="first
second"
REFERENCE=${PLAIN}/more
DEFAULT=${NOT_SET:-fallback}
NOTHING=${NOT_SET}
URL=postgres://user:pa$$word@host:5432/db?x=1&y=2
  INDENTED=yes
DOTTED.NAME=1
QUOTED_AND_COMMENT="x" # y
TRAILING=value{spaces}
"""


def test_it_reads_what_dagsters_own_reader_reads(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(SAMPLE.replace("{spaces}", "   "))
    script = "import dotenv, json, sys; print(json.dumps(dict(dotenv.dotenv_values(sys.argv[1]))))"
    python = python_of("dagster-oldest")
    theirs = json.loads(
        subprocess.run(
            [python, "-c", script, file], env={}, check=True, capture_output=True, text=True
        ).stdout
    )
    assert dotenv.read(file, {}) == theirs


def test_references_see_the_environment_and_what_stands_before(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\nB=${A}${HOME}\r\nC='x'\r\n")
    assert dotenv.read(file, {"HOME": "/h"}) == {"A": "1", "B": "1/h", "C": "x"}


def test_no_file_is_no_variables_and_a_broken_one_an_error(tmp_path: Path) -> None:
    assert dotenv.read(tmp_path / ".env", {}) == {}
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        dotenv.read(tmp_path / ".env", {})


def test_over_the_shells_variables_goes_the_file_as_with_dg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(ROOT / "tests/projects/refresh_dagster", root)
    (root / ".env").write_text("TINY_NUMBERS=1 ${TINY_NAME} ${SECOND}\nTINY_NAME=primes\n")
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    for name, value in {"TINY_NUMBERS": "9 9 9", "TINY_NAME": "shell", "SECOND": "2"}.items():
        monkeypatch.setenv(name, value)
    state = root / "src/tiny/defs/.local_defs_state/Numbers__primes__/state"

    dg = [python_of("dagster").with_name("dg"), "utils", "refresh-defs-state"]
    subprocess.run(dg, cwd=root, check=True, capture_output=True)
    theirs = state.read_text()
    shutil.rmtree(state.parent.parent)
    refresh([open_project(root, python=python_of("dagster"))], RefreshOptions(), Listener())

    assert json.loads(state.read_text()) == ["1", "shell", "2"]
    assert state.read_text() == theirs
