"""Which keys are asked, for how long, and what stands in; with commands as the source."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundler.errors import (
    BadData,
    CredentialsRefused,
    ToolFailed,
    Unavailable,
    VerificationFailed,
)
from bundler.listener import Listener
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh import checks, dotenv
from bundler.refresh.run import refresh
from tests.support.recording import RecordingListener
from tests.support.scripts import KEY, Refresh, writes


@pytest.mark.slow
def test_an_older_state_is_a_substitute_only_if_allowed_young_and_for_what_is_unavailable(
    run: Refresh, root: Path
) -> None:
    state = root / "state" / "Vendor__catalogue__" / "state"
    run(writes([1, 2]))
    with pytest.raises(Unavailable):
        run("sys.exit(69)")
    listener = RecordingListener()
    done = run("sys.exit(69)", listener=listener, allow_stale=3600.0)
    assert done.record[0].keys[0].stale
    assert json.loads(state.read_text()) == [1, 2]
    assert any("because of --allow-stale" in word for word in listener.texts)
    time.sleep(1.1)
    with pytest.raises(Unavailable):
        run("sys.exit(69)", allow_stale=1.0)
    with pytest.raises(CredentialsRefused):
        run("sys.exit(77)", allow_stale=3600.0)
    state.write_text("[9]")
    with pytest.raises(Unavailable):
        run("sys.exit(69)", allow_stale=3600.0)


@pytest.mark.parametrize(("ahead", "taken"), [(200, True), (4000, False), (10**8, False)])
def test_a_state_confirmed_in_the_future_is_not_a_substitute(
    run: Refresh, monkeypatch: pytest.MonkeyPatch, ahead: int, taken: bool
) -> None:
    """The clock of the machine that confirmed it was wrong: `verify --max-age` says the same."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(time.time()) + ahead))
    run(writes([1, 2]))
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    listener = RecordingListener()
    if taken:
        assert run("sys.exit(69)", listener=listener, allow_stale=1e9).record[0].keys[0].stale
        return
    with pytest.raises(Unavailable):
        run("sys.exit(69)", listener=listener, allow_stale=1e9)
    assert any("confirmed in the future" in word for word in listener.texts)


def test_never_refreshes_nothing_and_refuses_what_does_not_verify(run: Refresh, root: Path) -> None:
    with pytest.raises(VerificationFailed, match="has no valid state"):
        run(writes([1]), mode="never")
    run(writes([1]))
    assert run("sys.exit(1)", mode="never").changed == ()
    (root / "state" / "Vendor__catalogue__" / "state").write_text("[9]")
    with pytest.raises(VerificationFailed):
        run("sys.exit(1)", mode="never")


def test_missing_asks_only_for_what_does_not_verify(run: Refresh, root: Path) -> None:
    run(writes([1]), mode="missing")
    assert run("sys.exit(1)", mode="missing").changed == ()
    (root / "state" / "Vendor__catalogue__" / "state").write_text("[9]")
    assert run(writes([2]), mode="missing").changed == (KEY,)


def test_the_configuration_of_a_key_decides_unless_the_command_line_does(run: Refresh) -> None:
    run(writes([1]))
    table = f'refresh = "always"\n[tool.state-bundler.keys."{KEY}"]\nrefresh = "missing"'
    assert run("sys.exit(1)", table=table).changed == ()
    with pytest.raises(ToolFailed):
        run("sys.exit(1)", table=table, mode="always")


@pytest.mark.slow
def test_the_whole_refresh_ends_in_time(run: Refresh) -> None:
    with pytest.raises(Unavailable, match="the refresh did not finish within 1 s"):
        run("time.sleep(3600)", total_timeout=1.0)


@pytest.mark.slow
def test_a_key_ends_in_time(run: Refresh) -> None:
    with pytest.raises(Unavailable, match="did not finish within 1 s"):
        run("time.sleep(60)", over_all=KeyOptions(timeout=1.0))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('validate = ["python", "-c", "import sys; sys.exit(\'too odd\')"]', "too odd"),
        ('json-schema = "schema.json"', "does not match"),
    ],
)
def test_a_state_that_the_projects_own_check_refuses_is_bad_data(
    table: str, sentence: str, run: Refresh, root: Path
) -> None:
    root.mkdir()
    (root / "schema.json").write_text('{"type": "array", "items": {"type": "string"}}')
    with pytest.raises(BadData, match=sentence):
        run(writes([1]), table=table)
    code = "import json, sys; json.load(open(sys.argv[1]))"
    good = f'validate = ["python", "-c", "{code}", "{{state_path}}"]'
    run(writes(["a"]), table=f'json-schema = "schema.json"\n{good}')


def _second_project(root: Path, script: str) -> None:
    root.mkdir()
    (root / "pyproject.toml").write_text(
        f'[tool.state-bundler]\nattempts = 1\n[[tool.state-bundler.source]]\nkey = "{KEY}"\n'
        f'path = "state"\ncommand = ["python", "-c", {json.dumps(script)}, "{{state_path}}"]\n'
    )


@pytest.mark.slow
def test_of_several_projects_all_are_published_or_none(
    run: Refresh, root: Path, tmp_path: Path
) -> None:
    run(writes([1]))
    other = tmp_path / "other"
    _second_project(other, "import sys; open(sys.argv[1], 'w').write('[2]')")
    both = [open_project(path, python=Path(sys.executable)) for path in (root, other)]
    done = refresh(both, RefreshOptions(), Listener())
    assert [bundle.root for bundle in done.bundles] == [root / "state", other / "state"]
    (root / "fetch.py").write_text("import sys; open(sys.argv[1], 'w').write('[1, 2]')")
    file = other / "pyproject.toml"
    file.write_text(file.read_text().replace("import sys;", "import sys; sys.exit(69);"))
    both[1] = open_project(other, python=Path(sys.executable))
    with pytest.raises(Unavailable):
        refresh(both, RefreshOptions(), Listener())
    assert (root / "state/Vendor__catalogue__/state").read_text() == "[1]"
    assert (other / "state/Vendor__catalogue__/state").read_text() == "[2]"


def test_too_many_files_are_refused(run: Refresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_FILES", 50)
    script = "os.mkdir(path)\nfor n in range(60): open(f'{path}/{n}', 'w').write('x')"
    with pytest.raises(BadData, match="more than 50 files"):
        run(script)


def test_a_byte_order_mark_in_an_env_file_is_warned_of(
    run: Refresh, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundler.listener.of_process", listener := RecordingListener())
    read_by_older = {"values": {"\ufeffA": "1"}, "ignored": []}  # newer ones skip the mark
    monkeypatch.setattr(dotenv, "_ask", lambda *_: read_by_older)
    root.mkdir()
    (root / ".env").write_text("A=1\n", encoding="utf-8-sig")
    run(writes([1]))
    assert [word for word in listener.texts if "begins with a byte order mark" in word]


@pytest.mark.slow
def test_a_large_state_is_read_with_little_memory(run: Refresh, root: Path) -> None:
    run("open(path, 'w').write('x')")
    script = "import sys\nwith open(sys.argv[1], 'wb') as f: f.seek(150_000_000); f.write(b'x')\n"
    (root / "fetch.py").write_text(script)
    measured = (
        "import sys; from bundler.cli.refresh import refresh\n"
        "refresh(['--python', sys.executable], standalone_mode=False)\n"
        # Not ru_maxrss: a process inherits that of the one that started it.
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", measured], cwd=root, capture_output=True, text=True, check=True
    )
    kibibytes = int(done.stdout.splitlines()[-1])
    assert kibibytes < 120 * 1024
