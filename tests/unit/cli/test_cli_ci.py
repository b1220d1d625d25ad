"""What a CI system reads in our output: groups, annotations, the summary of a step."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.cli.ci import CiListener, System, annotation, failure_summary, system, table
from bundler.cli.console import Console
from bundler.errors import BadData, Unavailable
from tests.support import forked
from tests.support.workdir import WorkDir

_PROJECT = """\
[project]
name = "shop"
[[tool.state-bundler.source]]
key = "Catalogue"
command = ["{python}", "-c", "{script}", "{{state_path}}"]
path = "src/shop/state"
"""
_WRITES = "import sys; open(sys.argv[1], 'w').write('[1, 2]')"
_CI = ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITLAB_CI", "TF_BUILD", "CI")


def _run(wd: WorkDir, script: str, *arguments: str, **variables: str) -> tuple[int, str, str]:
    text = _PROJECT.format(python=sys.executable, script=script)
    wd.write("pyproject.toml", text)
    wd.write(".gitignore", "state\n")
    kept = {name: value for name, value in os.environ.items() if name not in _CI}
    environment = {**kept, **wd.env, **variables}
    done = forked.said("state-bundler", *arguments, cwd=wd.path, env=environment)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"GITHUB_ACTIONS": "true"}, "github"),
        ({"GITLAB_CI": "true"}, "gitlab"),
        ({"TF_BUILD": "True"}, "azure"),
        ({"CI": "1"}, None),
    ],
)
def test_which_system_it_is(environ: dict[str, str], expected: str | None) -> None:
    assert system(environ) == expected


@pytest.mark.parametrize(
    ("where", "begin", "end"),
    [
        ("github", r"^::group::One$", r"^::endgroup::$"),
        ("azure", r"^##\[group\]One$", r"^##\[endgroup\]$"),
        (
            "gitlab",
            r"\x1b\[0Ksection_start:\d+:state_bundler_1\r\x1b\[0KOne$",
            r"\x1b\[0Ksection_end:\d+:state_bundler_1\r\x1b\[0K$",
        ),
    ],
)
def test_phases_are_groups_that_are_closed(where: System, begin: str, end: str) -> None:
    stream = io.StringIO(newline="")
    listener = CiListener(Console(stream, {}), where)
    listener.phase("One")
    listener.note("inside")
    listener.phase("Two")
    listener.close()
    listener.close()
    shown = stream.getvalue()
    assert re.search(begin, shown, re.MULTILINE)
    assert len(re.findall(end, shown, re.MULTILINE)) == (2 if where != "gitlab" else 1)
    assert shown.index("inside") < re.search(end, shown, re.MULTILINE).start()  # type: ignore[union-attr]  # found above


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("github", "::error title=state-bundler::50%25: :  ::set-env name=x::y%0A: :error::z"),
        ("azure", "##vso[task.logissue type=error]50%AZP25: :  ::set-env name=x::y%0A: :error::z"),
        ("gitlab", ""),
    ],
)
def test_text_from_outside_gives_no_second_command(where: System, expected: str) -> None:
    assert annotation(where, "error", "50%: :  ::set-env name=x::y\n::error::z") == expected


def test_a_failed_refresh_is_annotated_and_summarised(wd: WorkDir, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    code, out, err = _run(
        wd, "raise SystemExit('no such table')", "refresh", "--attempts", "1",
        GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary),
    )  # fmt: skip
    assert (code, out) == (71, "")
    lines = err.splitlines()
    assert lines.index("::endgroup::") < next(
        at for at, line in enumerate(lines) if line.startswith("✗ tool failed (71)")
    )
    assert any(
        line.startswith("::error file=pyproject.toml,line=4,title=state-bundler::Catalogue")
        for line in lines
    )
    assert "### ✗ failed" in summary.read_text()
    assert "| tool failed (71) | Catalogue: " in summary.read_text()
    assert "(pyproject.toml:4) | " in summary.read_text()
    assert "| Catalogue | failed | tool failed (71) | 0 B | " in summary.read_text()


def test_what_doctor_finds_is_annotated_and_summarised(wd: WorkDir, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    wd.write("Dockerfile", "FROM x\nARG API_TOKEN\nCOPY x/.local_defs_state /x\n")
    code, out, err = _run(
        wd, _WRITES, "doctor", f"--python={sys.executable}",
        GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary),
    )  # fmt: skip
    assert code == 1
    copies = "Dockerfile:3 copies x/.local_defs_state into the image."
    assert (out + err).count(f"✗ findings (1): {copies}") == 1
    assert f"::error file=Dockerfile,line=3,title=state-bundler::{copies}\n" in err
    assert "::warning file=Dockerfile,line=2,title=state-bundler::Dockerfile:2 passes API" in err
    escaped = copies.replace("_", r"\_")
    assert f"| findings (1) | {escaped} (Dockerfile:3) | Remove that line" in summary.read_text()
    assert re.search(r"^1 failure, \d+ warnings?\..* Exit code 1\.$", err, re.MULTILINE)


def test_a_build_summarises_what_it_made(wd: WorkDir, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("of an earlier step\n")
    wd.write("x", "")
    code, _, err = _run(
        wd, _WRITES, "build", "oci", "-o", "build/image",
        GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary),
    )  # fmt: skip
    assert code == 0, err
    reported = summary.read_text()
    assert reported.startswith("of an earlier step\n### ✓ oci:build/image:latest\n")
    assert "| Catalogue | 6 B | " in reported
    assert err.count("::group::") == err.count("::endgroup::") > 2


def test_a_summary_that_cannot_be_written_fails_nothing(wd: WorkDir, tmp_path: Path) -> None:
    code, _, err = _run(wd, _WRITES, "refresh", GITHUB_STEP_SUMMARY=str(tmp_path))
    assert code == 0, err


def test_a_cell_of_a_summary_is_text() -> None:
    hostile = "a|b <img src=x> [link](javascript:x) `code`\nnew line"
    (row,) = table(("x",), [(hostile,)])[2:]
    assert row == (r"| a\|b &lt;img src=x&gt; \[link\](javascript:x) \`code\` new line |")
    assert len(table(("x",), [("y",)] * 1000)) == 503


def test_all_failures_are_in_the_summary() -> None:
    lines = failure_summary([Unavailable("A is down."), BadData("B is empty.", hint="Look.")])
    assert lines[0] == "### ✗ 2 failed"
    assert lines[-1] == "| bad data (65) | B is empty. | Look. |"


# --- terminals that can do little ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_gets_everything(wd: WorkDir, encoding: str) -> None:
    wd.write("ü.txt", "")
    for arguments in (
        ("refresh",),
        ("build", "oci", "-o", "build/image"),
        ("status",),
        ("doctor", f"--python={sys.executable}"),
        ("init", "--yes"),
        ("guard",),
        ("--help",),
        ("build", "--each", "oci", "-o", "build/{name}"),
    ):
        code, out, err = _run(wd, _WRITES, *arguments, PYTHONIOENCODING=encoding)
        assert code in (0, 1), (arguments, err)
        assert "Traceback" not in err
        assert "bug in state-bundler" not in err
        assert not re.search("[✓✗▸→]", out + err)


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"NO_COLOR": "1", "CI": "1"}])
def test_a_dumb_terminal_gets_no_control_sequence(wd: WorkDir, variables: dict[str, str]) -> None:
    import pty

    _run(wd, _WRITES, "--version")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "bundler", "refresh"], cwd=wd.path,
        stdout=theirs, stderr=theirs, stdin=theirs, env={**os.environ, **wd.env, **variables},
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # Linux's way to say that the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    assert b"\x1b" not in shown
    assert b"Catalogue" in shown
