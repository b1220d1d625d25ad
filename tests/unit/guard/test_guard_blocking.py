"""A FIFO where git would read a file: git is ended, and we do not wait ourselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.errors import ToolFailed
from bundler.git import Question, open_repository
from bundler.guard.quick import quick_check
from tests.support.workdir import STATE, WorkDir


@pytest.fixture
def repository(wd: WorkDir) -> WorkDir:
    wd.write("code.py")
    wd.write("sub/code.py")
    wd.commit("code")
    wd.write(f"defs/{STATE}/K/state")
    return wd


@pytest.mark.parametrize("fast", [True, False])
def test_git_is_ended_at_its_deadline(
    repository: WorkDir, monkeypatch: pytest.MonkeyPatch, *, fast: bool
) -> None:
    """Other questions about that repository then wait less, whatever is answered in between."""
    (repository.path / ".git/info/exclude").unlink(missing_ok=True)
    os.mkfifo(repository.path / ".git/info/exclude")
    found = open_repository(repository.path, fast=fast)
    assert found is not None
    status = Question(["status", "--porcelain"])
    with pytest.raises(ToolFailed, match=r"git did not answer within 0\.5 s") as caught:
        found.ask(status, timeout=0.5)
    assert "a FIFO as an ignore file" in caught.value.hint
    monkeypatch.setattr("bundler.git.repository._STUCK_SECONDS", 5.0)
    again = open_repository(repository.path, fast=fast)
    assert again is not None
    monkeypatch.setattr("bundler.git.repository._STUCK_SECONDS", 0.25)
    with pytest.raises(ToolFailed, match=r"git did not answer within 0\.25 s"):
        again.ask(status)


IN_THE_REPOSITORY = (
    "HEAD",
    "config",
    "index",
    "packed-refs",
    "info/exclude",
    "info/attributes",
    "info/sparse-checkout",
    "refs/heads/main",
    "shallow",
    "commondir",
    "config.worktree",
    "objects/info/alternates",
)


@pytest.mark.parametrize("path", IN_THE_REPOSITORY)
def test_the_quick_way_does_not_wait(
    repository: WorkDir, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the index alone; whatever else it wants to know and cannot, it leaves to git."""
    place = repository.path / ".git" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    monkeypatch.chdir(repository.path)
    quick_check()


def test_a_project_file(repository: WorkDir) -> None:
    """git does not read it, and we do not wait for it, either."""
    for name in ("pyproject.toml", "sub/dg.toml"):
        os.mkfifo(repository.path / name)
    repository.write(".gitignore", f"{STATE}\n")
    assert repository.guard().code == 0
    assert repository.guard("--staged").code == 0


@pytest.mark.slow
def test_a_word_before_ten_seconds_are_over(repository: WorkDir, tmp_path: Path) -> None:
    """Whatever git waits for: a git that never answers stands for it here."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "bin/git").chmod(0o755)
    env = {**repository.env, "PATH": f"{tmp_path / 'bin'}:{repository.env['PATH']}"}
    argv = [Path(sys.executable).with_name("state-guard")]
    with subprocess.Popen(argv, cwd=repository.path, env=env, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"still checking" in process.stderr.readline()
        assert process.poll() is None
        process.terminate()


@pytest.mark.slow
def test_a_notice_while_nothing_comes_from_git(repository: WorkDir) -> None:
    argv = [str(Path(sys.executable).with_name("state-guard")), "--push"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, cwd=repository.path, env=repository.env, stdin=pipe, stderr=pipe
    ) as process:
        assert process.stderr is not None
        assert b"waiting for git's input on stdin" in process.stderr.readline()
        process.communicate()
    assert process.returncode == 0
