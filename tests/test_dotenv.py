"""`bundler.refresh.dotenv` reads what python-dotenv, which Dagster uses, reads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from environments import python_of

from bundler.errors import ConfigurationError
from bundler.refresh import dotenv

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
