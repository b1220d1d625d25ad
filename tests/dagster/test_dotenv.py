"""`bundler.refresh.dotenv` reads what python-dotenv, which Dagster uses, reads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler import listener
from bundler.errors import ConfigurationError
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh import dotenv
from bundler.refresh.run import refresh
from tests.support.environments import DAGSTER_ALONE, ROOT, python_of

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


SCRIPT = "import dotenv, json, sys; print(json.dumps(dict(dotenv.dotenv_values(sys.argv[1]))))"


def _theirs(python: Path, file: Path, environment: dict[str, str]) -> dict[str, str]:
    """What python-dotenv itself reads, as Dagster takes it."""
    said = subprocess.run(
        [python, "-c", SCRIPT, file], env=environment, check=True, capture_output=True, text=True
    ).stdout
    return {name: value for name, value in json.loads(said).items() if value is not None}


def test_it_reads_what_dagsters_own_reader_reads(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(SAMPLE.replace("{spaces}", "   "))
    python = python_of("dagster-oldest")
    assert dotenv.read(file, {}, python) == _theirs(python, file, {}) == dotenv.read(file, {})


PIECES = (
    *("A", "B", "KEY", "'a b'", "my-key", "x.y", "export ", "=", " = ", "#", " # c", "\n", "\r\n"),
    *("'", '"', "\\", "\\n", "${A}", "${B:-d}", "$A", " ", "\t", "v", "é", "\ufeff", "KEY= # c\n"),
)


@settings(max_examples=15, deadline=None)
@given(text=st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_text_is_read_as_dagsters_own_reader_reads_it(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.env"
    file.write_bytes(text.encode())
    python, environment = python_of("dagster-oldest"), {"B": "from outside"}
    assert dotenv.read(file, environment, python) == _theirs(python, file, environment)


@pytest.mark.parametrize(
    ("line", "is_ignored"),
    [
        ("API TOKEN=s3cret", True),
        ("- TOKEN=s3cret", True),
        ("TOKEN='s3cret", True),
        ('TOKEN="s3cret" s3cret', True),
        ("'TOKEN s3cret", True),
        ("=s3cret", True),
        ("# TOKEN s3cret", False),
        ("TOKEN", False),  # it is not set, with dg neither
        ("export TOKEN=s3cret's", False),
    ],
)
def test_a_line_that_is_ignored_is_named_once_without_its_value(
    line: str, is_ignored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(listener.of_process, "warning", warnings.append)
    file = tmp_path / ".env"
    file.write_text(f"A=1\n\n{line}\n")
    for python in (python_of("dagster-oldest"), None):
        assert dotenv.read(file, {}, python)["A"] == "1"
    assert [f"{file}:3 is not" in warning for warning in warnings] == [True] * is_ignored
    assert "s3cret" not in "".join(warnings)


def test_the_version_in_the_projects_environment_decides(tmp_path: Path) -> None:
    """1.0 takes ``# c`` for the value of ``KEY= # c``; newer versions for a comment."""
    older = tmp_path / "older"
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", older]
    subprocess.run([*uv, "python-dotenv==1.0.0"], check=True)
    file = tmp_path / ".env"
    file.write_text("KEY= # c\nOTHER='it\\\\'s'\n")
    python = python_of("dagster-oldest")
    versions = [{}, {"PYTHONPATH": str(older)}]
    read = [dotenv.read(file, environment, python) for environment in versions]
    assert read == [_theirs(python, file, environment) for environment in versions]
    assert read[0] != read[1]


def test_an_interpreter_without_python_dotenv_works(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1")
    empty = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", empty], check=True)
    for python in (empty / "bin/python", tmp_path / "nowhere"):
        assert dotenv.read(file, {}, python) == {"A": "1"}


def test_references_see_the_environment_and_earlier_lines(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\nB=${A}${HOME}\r\nC='x'\r\n")
    assert dotenv.read(file, {"HOME": "/h"}) == {"A": "1", "B": "1/h", "C": "x"}


def test_a_missing_file_has_no_variables_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    assert dotenv.read(tmp_path / ".env", {}) == {}
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        dotenv.read(tmp_path / ".env", {})
    (tmp_path / ".env").write_bytes(b"A=1\0")
    with pytest.raises(ConfigurationError, match="NUL"):
        dotenv.read(tmp_path / ".env", {})
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()
    assert dotenv.read(tmp_path / ".env", {}) == {}


def test_a_fifo_that_nobody_writes_to_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dotenv, "_SECONDS", 0.5)
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(ConfigurationError, match="took longer than"):
        dotenv.read(tmp_path / ".env", {}, Path(sys.executable))


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

    dg = [python_of(DAGSTER_ALONE).with_name("dg"), "utils", "refresh-defs-state"]
    subprocess.run(dg, cwd=root, check=True, capture_output=True)
    theirs = state.read_text()
    shutil.rmtree(state.parent.parent)
    refresh([open_project(root, python=python_of(DAGSTER_ALONE))], RefreshOptions(), Listener())

    assert json.loads(state.read_text()) == ["1", "shell", "2"]
    assert state.read_text() == theirs
