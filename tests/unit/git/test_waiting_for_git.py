"""A git that does not answer: a word within seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.git import runner
from bundler.system import fast_process
from bundler.system.fast_process import Answer, Command
from tests.campaigns.fault_campaign import STATES, configure, write_inputs
from tests.support import forked
from tests.support.workdir import WorkDir

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent
# Below git's own timeout, above what a busy machine needs.
SECONDS = 100
# The program, with less patience than it has.
PATIENCE = {"bundler.system.fast_process.PATIENCE_SECONDS": 0.3}
PROGRAM = """\
import sys
from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.system import fast_process

fast_process.PATIENCE_SECONDS = 0.3
sys.exit(run(cli, sys.argv[1:]))
"""


@pytest.fixture
def shop(wd: WorkDir, tmp_path: Path) -> WorkDir:
    """A project with a published state, in a repository."""
    write_inputs(tmp_path / "inputs", {"a": {"state": "some"}})
    configure(wd.path, tmp_path / "inputs", ["a"])
    wd.write("src/shop/__init__.py", "")
    wd.write(".gitignore", f"/{STATES}\n/dist\n/store\n/build\n*.egg-info\n")
    wd.write("deep/er/file")
    wd.commit("code")
    wd([BIN / "state-bundler", "refresh"])
    return wd


def argv(wd: WorkDir, command: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *command.format(root=wd.path).split()]


def run(wd: WorkDir, command: str) -> subprocess.CompletedProcess[str]:
    words = command.format(root=wd.path).split()
    return forked.said(
        "state-bundler", *words, cwd=wd.path, env=wd.env, timeout=SECONDS, settings=PATIENCE
    )


def put_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("run", [fast_process.run_concurrently, runner.run])
def test_git_gets_all_of_a_long_input_however_slow_it_is(
    run: Callable[..., list[Answer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_process, "PATIENCE_SECONDS", 0.0)
    text = bytes(1_000_000)
    (answer,) = run([Command("/bin/cat", [], text)], os.environ, 20.0, lambda: None)
    assert (answer.exit_code, answer.stdout == text) == (0, True)
    (answer,) = run([Command("/bin/true", [], text)], os.environ, 20.0, lambda: None)
    assert answer.exit_code == 0


@pytest.mark.parametrize(
    "name",
    [
        *("pyproject.toml", "dg.toml"),
        pytest.param(".pre-commit-config.yaml", marks=pytest.mark.slow),
    ],
)
def test_no_command_waits_for_a_fifo_among_the_project_s_files(shop: WorkDir, name: str) -> None:
    put_fifo(shop.path / name)
    for command in ("status", "doctor", "init --yes", "refresh"):
        done = run(shop, command)
        if name in done.stderr + done.stdout or "toml" in name:
            assert f"{name}: it is not a regular file." in done.stderr + done.stdout
            assert done.returncode == (1 if command == "doctor" and "toml" not in name else 74)
        else:
            assert done.returncode == 0, done


@pytest.mark.parametrize("command", ["doctor", "refresh -o states.tar"])
def test_a_word_while_git_does_not_answer(shop: WorkDir, tmp_path: Path, command: str) -> None:
    assert fast_process.PATIENCE_SECONDS < 10
    (tmp_path / "bin").mkdir()
    git = tmp_path / "bin/git"
    git.write_text("#!/bin/sh\nexec sleep 600\n")
    git.chmod(0o755)
    env = {**shop.env, "PATH": f"{git.parent}:{shop.env['PATH']}"}
    with subprocess.Popen(
        argv(shop, command),
        cwd=shop.path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        assert any(b"Still waiting for git (rev-parse)" in line for line in process.stdout)
        assert process.poll() is None
        process.terminate()
