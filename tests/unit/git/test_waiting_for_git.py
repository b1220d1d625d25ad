"""A git that does not answer: a word within seconds, and what it waits for is found and named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundler.errors import ToolFailed
from bundler.git import repository, runner
from bundler.git.identity import code_identity
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
# The exit code in a repository in which nothing blocks git.
COMMANDS = {
    "status": 0,
    "doctor": 1,
    "init --yes": 0,
    "refresh": 0,
    "refresh -o states.tar": 0,
    f"verify {STATES}": 0,
    f"diff {STATES} {STATES}": 0,
    f"extract {STATES} -o {{root}}.out": 0,
    f"predicate {STATES}": 0,
    "guard": 0,
    "guard --staged": 0,
    "store push --store file://{root}/store": 0,
}
NOT_A_FILE = re.compile(r"(git would read it and block|it is not a regular file)")


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


@pytest.mark.slow
def test_a_fifo_deep_in_the_work_tree_is_named(
    shop: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_process, "PATIENCE_SECONDS", 0.3)
    put_fifo(shop.path / "deep/er/.gitignore")
    with pytest.raises(ToolFailed, match=r"deep/er/\.gitignore is a FIFO"):
        code_identity(shop.path)


def test_another_repository_in_the_work_tree_is_not_looked_at(
    shop: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git does not look into it, either: it only takes its time."""
    monkeypatch.setattr(fast_process, "PATIENCE_SECONDS", 0.0)
    WorkDir.make(shop.path / "deep/other")
    put_fifo(shop.path / "deep/other/.gitignore")
    assert code_identity(shop.path) is not None


@pytest.fixture
def slow_git(shop: WorkDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers right, after a while; only whether something is ignored it says immediately."""
    (tmp_path / "bin").mkdir()
    git = tmp_path / "bin/git"
    real = shutil.which("git")
    git.write_text(
        f'#!/bin/sh\ncase "$*" in *check-ignore*) ;; *) sleep 2 ;; esac\nexec {real} "$@"\n'
    )
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{git.parent}:{shop.env['PATH']}")
    monkeypatch.setattr(fast_process, "PATIENCE_SECONDS", 0.0)


@pytest.mark.usefixtures("slow_git")
@pytest.mark.parametrize("name", [".gitignore", ".gitattributes"])
def test_a_fifo_that_git_does_not_read_fails_nothing(shop: WorkDir, name: str) -> None:
    for folder in ("build", "build/deep/er"):
        (shop.path / folder).mkdir(parents=True)
        put_fifo(shop.path / folder / name)
    identity = code_identity(shop.path)
    assert identity is not None
    assert identity.commit == shop("git rev-parse HEAD").strip()
    put_fifo(shop.path / "deep/er" / name)
    with pytest.raises(ToolFailed, match=f"deep/er/{re.escape(name)} is a FIFO"):
        code_identity(shop.path)


@pytest.mark.usefixtures("slow_git")
def test_the_search_ends_with_git(shop: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    def endless(*_: object) -> Iterator[None]:
        nonlocal steps
        while True:
            steps += 1
            yield

    monkeypatch.setattr(repository, "refuse_rules_that_block", endless)
    assert code_identity(shop.path) is not None
    assert steps > 1


@pytest.mark.parametrize("run", [fast_process.run_concurrently, runner.run])
def test_git_gets_all_of_a_long_input_however_slow_it_is(
    run: Callable[..., list[Answer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_process, "PATIENCE_SECONDS", 0.0)
    text = bytes(1_000_000)
    (answer,) = run([Command("/bin/cat", [], text)], os.environ, 20.0, iter([None, None]))
    assert (answer.exit_code, answer.stdout == text) == (0, True)
    (answer,) = run([Command("/bin/true", [], text)], os.environ, 20.0, iter([None, None]))
    assert answer.exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", ["build oci --no-guard -o out", "build wheel --no-guard"])
def test_a_build_without_the_guard_names_the_fifo(shop: WorkDir, command: str) -> None:
    put_fifo(shop.path / "deep/er/.gitignore")
    done = run(shop, command)
    assert done.returncode == 0, done
    assert "Still waiting for git (status)" in done.stderr
    reported = " ".join(done.stderr.split())
    assert "The run record will not name the commit" in reported
    assert "deep/er/.gitignore is a FIFO" in reported


PLACES = (
    *("deep/er/.gitignore", "deep/er/.gitattributes", ".gitignore", ".gitattributes"),
    *(".git/info/exclude", "core.excludesFile", "core.attributesFile"),
)


@pytest.mark.parametrize(
    "place", [PLACES[0], *(pytest.param(place, marks=pytest.mark.slow) for place in PLACES[1:])]
)
def test_no_command_waits_for_a_fifo(shop: WorkDir, tmp_path: Path, place: str) -> None:
    if place.startswith("core."):
        os.mkfifo(tmp_path / "named")
        shop(["git", "config", place, str(tmp_path / "named")])
    else:
        put_fifo(shop.path / place)
    for command, code in COMMANDS.items():
        done = run(shop, command)
        if done.returncode in (71, 74):
            assert NOT_A_FILE.search(done.stderr), done
        else:
            assert done.returncode == code, done


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
