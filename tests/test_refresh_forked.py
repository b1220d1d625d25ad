"""Commands whose worker is a fork of this process: what they see of it, and how they end. 3 s."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundler.listener import Listener
from bundler.options import RefreshOptions
from bundler.project import open_project
from bundler.refresh import forked
from bundler.refresh.run import refresh

SOURCE = """
[[tool.state-bundler.source]]
key = "{name}"
path = "state"
command = ["{python}", "{name}.py", "{{state_path}}"]
"""
LOOK = """
import json, os, sys
seen = {
    "session": os.getsid(0),
    "folder": os.getcwd(),
    "open": [os.readlink(f"/proc/self/fd/{n}") for n in sorted(os.listdir("/proc/self/fd"))[:-1]],
    "environment": dict(os.environ),
}
json.dump(seen, open(sys.argv[1], "w"))
print("told to nobody")
"""
STAY = """
import os, subprocess, sys, time
process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
open("pids", "w").write(f"{os.getpid()} {process.pid} ")
time.sleep(1000)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")


def project(root: Path, **scripts: str) -> Path:
    tables = [SOURCE.format(name=name, python=sys.executable) for name in scripts]
    (root / "pyproject.toml").write_text("".join(tables))
    for name, script in scripts.items():
        (root / f"{name}.py").write_text(script)
    return root


def looked(root: Path) -> dict[str, dict[str, Any]]:
    bundle = refresh([open_project(root)], RefreshOptions(), Listener()).bundles[0]
    found = {
        state.key: json.loads((bundle.root / state.path / "state").read_text())
        for state in bundle.manifest.states
    }
    assert found
    return found


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were forked."""
    pids: list[int] = []
    start = forked.start

    def counted(*arguments: object, **options: object) -> forked.Forked:
        process = start(*arguments, **options)  # type: ignore[arg-type]  # passed on
        pids.append(process.pid)
        return process

    monkeypatch.setattr(forked, "start", counted)
    return pids


def test_a_command_sees_the_project_and_nothing_of_ours(
    tmp_path: Path,
    forks: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTHONHOME", sys.prefix)
    (tmp_path / ".env").write_text("FROM_FILE=there\n")
    secret = os.open(tmp_path / ".env", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        found = looked(project(tmp_path, One=LOOK, Two=LOOK))
    finally:
        os.close(secret)
    assert (len(forks), len(found)) == (1, 2)
    for seen in found.values():
        assert seen["folder"] == str(tmp_path)
        assert seen["session"] != os.getsid(0)
        assert seen["environment"]["FROM_FILE"] == "there"
        assert "PYTHONHOME" not in seen["environment"]
        first, *others = seen["open"]
        assert first == os.devnull
        assert len(others) == 2
        assert {Path(name).suffix for name in others} == {".log"}
    assert "told to nobody" not in "".join(capfd.readouterr())
    for pid in forks:
        assert not Path(f"/proc/{pid}").exists()


def test_where_another_thread_runs_nothing_is_forked(tmp_path: Path, forks: list[int]) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        looked(project(tmp_path, One=LOOK))
    finally:
        end.set()
        thread.join()
    assert forks == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_all_of_it_ends_with_us(tmp_path: Path, number: signal.Signals) -> None:
    root = project(tmp_path, One=STAY, Two=LOOK)
    with subprocess.Popen(
        [sys.executable, "-m", "bundler", "refresh"],
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert within(20, lambda: (root / "pids").exists() and len(pids(root)) == 2)
        process.send_signal(number)
        process.wait(timeout=10)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert within(10, lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids(root)))


def pids(root: Path) -> list[str]:
    return (root / "pids").read_text().split()


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
