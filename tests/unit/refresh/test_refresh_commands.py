"""How a command is run and judged: its exit code, its output, what it leaves."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from bundler.errors import (
    BadData,
    BundlerError,
    CredentialsRefused,
    ToolFailed,
    Unavailable,
)
from bundler.listener import Listener
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from tests.support.recording import RecordingListener
from tests.support.scripts import KEY, Refresh, writes


@pytest.mark.parametrize(
    ("script", "kind", "sentence"),
    [
        ("sys.exit(3)", ToolFailed, "exit code 3: it printed nothing"),
        ("print('no luck'); sys.exit(1)", ToolFailed, "no luck"),
        ("sys.exit(69)", Unavailable, "exit code 69"),
        ("sys.exit(75)", Unavailable, "exit code 75"),
        ("sys.exit(77)", CredentialsRefused, "exit code 77"),
        ("import urllib.request as u; u.urlopen('http://127.0.0.1:1')", Unavailable, "refused"),
        ("pass", BadData, "the command wrote nothing"),
    ],
)
def test_a_command_is_judged_by_its_exit_code_its_output_and_what_it_wrote(
    script: str, kind: type[BundlerError], sentence: str, run: Refresh
) -> None:
    with pytest.raises(kind, match=sentence) as failed:
        run(script)
    assert failed.value.key == KEY
    assert "Traceback" not in failed.value.what


@pytest.mark.parametrize(
    ("words", "is_warned"),
    [
        (["sh", "-c", "false | echo '[1]' > $0"], True),
        (["/bin/bash", "-uc", "false; echo '[1]' > $0"], True),
        (["bash", "-c", "false\necho '[1]' > $0"], True),
        (["sh", "-c", "test -e x; echo '[1]' > $0"], True),
        (["bash", "-c", "set -u -e; echo '[1]' > $0"], False),
        (["bash", "-c", "set -o errexit\necho '[1]' > $0"], False),
        (["bash", "-c", "set -eo pipefail; echo '[1]' | cat > $0"], False),
        (["bash", "-eo", "pipefail", "-c", "echo '[1]' | cat > $0; true"], False),
        (["sh", "-c", "false || echo '[\"|;\"]' > $0"], False),
        (["sh", "-c", "echo '[1]' > \"$0\""], False),
        (["sh", "-c", "echo \"isn't it\" && echo '[1]' > $0 # it's; good"], False),
        (["sh", "-c", "export A=1; cd . || exit 1; true && \n  echo '[1]' >| $0;\n"], False),
        (["sh", "-c", "if true; then echo '[1]' > $0; else false; fi"], False),
        (["sh", "-c", "cat > $0 <<'END'\n[1,\n1]\nEND\n"], False),
        (["sh", "-c", "cat > $0 <<END\n[1]\nEND\ntrue"], True),
        (["sh", "-c", "export A=$(false); echo '[1]' > $0"], True),
    ],
)
def test_a_shell_that_ignores_failures_is_warned_of(
    words: list[str], *, is_warned: bool, run: Refresh, root: Path
) -> None:
    listener = RecordingListener()
    run(writes([1]))
    file = root / "pyproject.toml"
    argv = json.dumps([*words, "{state_path}"])
    file.write_text(f"{file.read_text().partition('command =')[0]}command = {argv}\n")
    refresh([open_project(root, python=Path(sys.executable))], RefreshOptions(), listener)
    assert any("ignores a failure" in word for word in listener.texts) is is_warned


@pytest.mark.parametrize(
    ("first_line", "mode", "problem"),
    [
        ("#!/bin/sh\r", 0o755, "the interpreter in its first line does not exist"),
        ("#!/bin/sh", 0o644, "Permission denied"),
        ("", 0o755, "Exec format error"),
    ],
)
def test_a_script_that_cannot_run_is_an_error(
    first_line: str, mode: int, problem: str, run: Refresh, root: Path
) -> None:
    run(writes([1]))
    (root / "fetch.sh").write_bytes(first_line.encode())
    (root / "fetch.sh").chmod(mode)
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('"python"', '"./fetch.sh"'))
    with pytest.raises(ToolFailed, match=f"cannot be started: ./fetch.sh: {problem}") as failed:
        refresh([open_project(root, python=Path(sys.executable))], RefreshOptions(), Listener())
    assert "executable" in failed.value.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("import sys; sys.stdin.read()", "had not finished: "),
        ("import sys; file = open(sys.argv[1], 'a'); sys.stdin.read()", "was still writing state"),
    ],
)
def test_a_process_that_is_left_with_the_path_of_the_state_makes_it_incomplete(
    script: str, problem: str, run: Refresh
) -> None:
    """It has not opened a file yet, as a download that waits for its first bytes."""
    left = (
        "import subprocess; read, write = os.pipe(); os.set_inheritable(write, True)\n"
        f"argv = [sys.executable, '-c', {script!r}, path]\n"
        "subprocess.Popen(argv, stdin=read, start_new_session=True, close_fds=False)\n"
    )
    wait = "while not os.path.exists(path): time.sleep(0.01)\n"
    with pytest.raises(BadData, match=f"it left running {problem}"):
        run(left + (wait if "open" in script else "") + writes([1]))


@pytest.mark.parametrize(
    ("command", "why"),
    [('"no-such-program"', "No such file"), (r'"python", "\u0000"', "embedded null byte")],
)
def test_a_command_that_cannot_be_started_is_an_error(
    command: str, why: str, run: Refresh, root: Path
) -> None:
    run(writes([1]))
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('"python"', command))
    with pytest.raises(ToolFailed, match=f"the program cannot be started: .*{why}") as failed:
        refresh([open_project(root, python=Path(sys.executable))], RefreshOptions(), Listener())
    assert KEY in failed.value.what


_SNAPSHOT = """
import shutil, sqlite3
previous = sys.argv[2]
if os.path.exists(previous):
    os.replace(previous, path)
base = sqlite3.connect(path)
base.execute('CREATE TABLE IF NOT EXISTS days (day)')
base.execute('INSERT INTO days VALUES (1)')
base.commit()
base.close()
"""


def _days(state: Path) -> int:
    (count,) = sqlite3.connect(state).execute("SELECT count(*) FROM days").fetchone()
    return int(count)


@pytest.mark.slow
def test_a_snapshot_starts_from_the_last_one_and_cannot_spoil_it(run: Refresh, root: Path) -> None:
    state = root / "state/Vendor__catalogue__/state"
    for count in (1, 2, 3):
        run(_SNAPSHOT)
        assert _days(state) == count
    with pytest.raises(ToolFailed):
        run(f"{_SNAPSHOT}\nprint(os.path.getsize(path))\nsys.exit(1)")
    assert _days(state) == 3
    state.write_bytes(b"edited")  # no good state any more
    run(_SNAPSHOT)
    assert _days(state) == 1


def test_each_attempt_gets_its_own_copy_of_everything_in_the_last_state(
    run: Refresh, root: Path
) -> None:
    run("os.mkdir(path); open(path + '/a', 'w').write('1'); open(path + '.more', 'w').write('2')")
    looks = """
previous = sys.argv[2]
assert open(previous + '/a').read() + open(previous + '.more').read() == '12'
assert os.path.isabs(previous) and os.access(previous + '/a', os.W_OK)
os.unlink(previous + '/a')
if not os.path.exists('again'):
    open('again', 'w')
    sys.exit(75)
os.mkdir(path); open(path + '/a', 'w').write('3')
"""
    run(looks, table="", defaults=KeyOptions(attempts=2))
    assert (root / "state/Vendor__catalogue__/state/a").read_text() == "3"


def test_without_a_last_state_there_is_nothing_at_its_path(run: Refresh) -> None:
    run(f"assert not os.path.lexists(sys.argv[2]) and os.path.isabs(sys.argv[2])\n{writes([1])}")


def test_the_path_of_the_last_state_does_not_ship(run: Refresh) -> None:
    with pytest.raises(BadData, match="path of the staging directory"):
        run("open(path, 'w').write(sys.argv[2])")
