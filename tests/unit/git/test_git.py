"""Asking git: the identity of the code, the environment, the processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bundler import git
from bundler.errors import ToolFailed
from bundler.git.identity import without_credentials
from bundler.git.repository import environment
from bundler.system.fast_process import Command, run_concurrently
from tests.support.workdir import STATE, WorkDir


@pytest.fixture
def repository(wd: WorkDir, monkeypatch: pytest.MonkeyPatch) -> WorkDir:
    for name, value in wd.env.items():
        monkeypatch.setenv(name, value)
    wd.write("code.py")
    wd.write(".gitignore", f"{STATE}/\n*.log\n")
    wd.commit()
    return wd


def identity(wd: WorkDir) -> git.CodeIdentity:
    code = git.code_identity(wd.path)
    assert code is not None
    return code


def test_identity(repository: WorkDir) -> None:
    code = identity(repository)
    assert code.commit == repository("git rev-parse HEAD")
    assert code.tree == repository("git rev-parse HEAD^{tree}")
    assert (code.dirty, code.remote) == (False, None)
    assert git.code_identity(repository.path / ".git" / "hooks") is not None


@pytest.mark.parametrize("change", ["changed", "staged", "untracked", "deleted"])
def test_dirty(repository: WorkDir, change: str) -> None:
    if change == "changed":
        repository.write("code.py", "other\n")
    elif change == "staged":
        repository.write("new.py")
        repository("git add new.py")
    elif change == "untracked":
        repository.write("new.py")
    else:
        (repository.path / "code.py").unlink()
    assert identity(repository).dirty


def test_state_and_logs_make_nothing_dirty(repository: WorkDir) -> None:
    repository.write(f"defs/{STATE}/K/state")
    repository.write("build.log")
    assert not identity(repository).dirty


def test_identity_before_the_first_commit(tmp_path: Path, repository: WorkDir) -> None:
    wd = WorkDir.make(tmp_path / "unborn")
    assert identity(wd) == git.CodeIdentity(None, None, dirty=False, remote=None)
    wd.write("code.py")
    assert identity(wd).dirty


def test_no_repository(
    tmp_path: Path, repository: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "none").mkdir()
    assert git.code_identity(tmp_path / "none") is None


def test_remote(repository: WorkDir) -> None:
    repository("git remote add fork https://me:secret@example.com/fork.git?token=x")
    assert identity(repository).remote == "https://example.com/fork.git"
    repository("git remote add origin git@example.com:team/code.git")
    assert identity(repository).remote == "git@example.com:team/code.git"
    repository("git config branch.main.remote fork")
    assert identity(repository).remote == "https://example.com/fork.git"


@pytest.mark.parametrize(
    ("url", "published"),
    [
        ("https://user:token@host/x.git", "https://host/x.git"),
        ("https://token@host:8443/x.git?private=1#f", "https://host:8443/x.git"),
        ("ssh://git:secret@host:22/x", "ssh://git@host:22/x"),
        ("git+ssh://git@host/x", "git+ssh://git@host/x"),
        ("git@host:team/x.git", "git@host:team/x.git"),
        ("host:x.git", "host:x.git"),
        ("/srv/git/x.git", None),
        ("../x.git", None),
        ("./a:b", None),
        ("file:///srv/git/x.git", None),
        ("ext::sh -c anything", None),
        ("helper::https://user:token@host/x", None),
    ],
)
def test_without_credentials(url: str, published: str | None) -> None:
    assert without_credentials(url) == published


def test_environment_drops_what_a_hook_was_handed() -> None:
    inherited = {
        "PATH": "/bin",
        "GIT_DIR": "/a/.git",
        "GIT_INDEX_FILE": "index.lock",
        "GIT_CONFIG_PARAMETERS": "'a.b=c'",
        "GIT_CONFIG_KEY_0": "a.b",
        "GIT_TRACE": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GITHUB_ACTIONS": "true",
    }
    kept = environment(inherited)
    assert kept["GITHUB_ACTIONS"] == "true"
    assert kept["GIT_CONFIG_KEY_0"] == "a.b"
    dropped = {name for name in inherited if name.startswith("GIT_")} - {"GIT_CONFIG_KEY_0"}
    assert not dropped & set(kept)
    assert environment(inherited, {"GIT_DIR": "/b/.git"})["GIT_DIR"] == "/b/.git"


# --- processes side by side -----------------------------------------------------------------


def sh(script: str, stdin: bytes = b"") -> Command:
    return Command("/bin/sh", ["-c", script], stdin)


def test_side_by_side(tmp_path: Path) -> None:
    """Each waits for the other: one after the other they would never end."""
    one, other = tmp_path / "one", tmp_path / "other"
    os.mkfifo(one)
    os.mkfifo(other)
    first = sh(f"echo x > {one}; read y < {other}; echo $y; echo b >&2; exit 3")
    second = sh(f"read x < {one}; echo y > {other}; echo $x")
    answers = run_concurrently([first, second], {}, 30)
    assert answers[0] == (3, b"y\n", b"b\n")
    assert answers[1] == (0, b"x\n", b"")


def test_much_input_and_output_concurrently() -> None:
    text = b"x" * (1 << 22)
    (answer,) = run_concurrently([sh("cat; cat >&2", text)], {"PATH": "/bin:/usr/bin"}, 30)
    assert answer == (0, text, b"")


def test_a_program_that_does_not_listen() -> None:
    (answer,) = run_concurrently([sh("exec 0<&-; echo done", b"x" * (1 << 22))], {}, 30)
    assert answer.stdout == b"done\n"


def test_a_program_that_does_not_end(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    command = sh(f"sleep 60 & echo $! > {started}; wait")
    with pytest.raises(ToolFailed, match=r"sh did not answer within 0\.5 s"):
        run_concurrently([command], {"PATH": "/bin:/usr/bin"}, 0.5)
    child = Path("/proc") / started.read_text().strip()
    deadline = time.monotonic() + 5
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(child)


def _runs(process: Path) -> bool:
    try:
        return "sleep" in (process / "cmdline").read_text()
    except OSError:
        return False


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ToolFailed, match="cannot be started"):
        run_concurrently([sh("true"), Command("/nonexistent/git", [])], {}, 30)


def test_start_up_stays_cheap(repository: WorkDir) -> None:
    """What the quick way may load: neither typing nor anything that comes from elsewhere."""
    done = repository.run(
        ["python", "-X", "importtime", "-c", _MAIN.format(arguments=["--staged"])]
    )
    assert done.returncode == 0, done
    loaded = {line.rpartition(b"|")[2].strip().decode() for line in done.stderr.splitlines()}
    ours = {name for name in loaded if name.startswith("bundler")}
    assert "bundler.guard.quick" in ours
    assert "bundler.git" not in ours
    assert not loaded & {"typing", "collections", "enum", "re", "subprocess", "pathlib", "json"}
    heavy = {"click", "git", "docker", "msgspec", "rich", "urllib3", "tomllib"}
    assert not loaded & heavy


_MAIN = (
    "import sys; from bundler.cli.state_guard import main\n"
    "sys.argv = ['x', *{arguments}]; sys.exit(main())"
)


def test_the_long_way_stays_cheap_too(repository: WorkDir) -> None:
    done = repository.run(["python", "-X", "importtime", "-c", _MAIN.format(arguments=[])])
    loaded = {line.rpartition(b"|")[2].strip().decode() for line in done.stderr.splitlines()}
    assert "bundler.guard.worktree" in loaded
    assert not loaded & {"typing", "enum", "re", "subprocess", "pathlib", "click", "msgspec"}
