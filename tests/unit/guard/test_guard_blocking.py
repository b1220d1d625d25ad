"""A FIFO or a device where git would read a file: named immediately, and never waited for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.errors import ToolFailed
from bundler.git.identity import code_identity
from tests.support.workdir import STATE, WorkDir

FILE = f"defs/{STATE}/K/state"
FIFO, DEVICE, SOCKET, LINK = "a FIFO", "a device", "a socket", "a link to a FIFO"
# Far below git's own timeout, far above what a busy machine needs.
SECONDS = 60


@pytest.fixture
def repository(wd: WorkDir) -> WorkDir:
    wd.write("code.py")
    wd.write("sub/code.py")
    wd.commit("code")
    wd.write(FILE)
    return wd


def put(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if kind == FIFO:
        os.mkfifo(path)
    elif kind == DEVICE:
        path.symlink_to("/dev/zero")
    elif kind == SOCKET:
        with socket.socket(socket.AF_UNIX) as server:
            place = os.open(path.parent, os.O_RDONLY)
            server.bind(f"/proc/self/fd/{place}/{path.name}")
            os.close(place)
    else:
        os.mkfifo(path.with_name("fifo"))
        path.symlink_to("fifo")


def is_refused(wd: WorkDir, place: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    said = wd.guard(*arguments, env=env)
    assert said.code == 71, said
    assert place in said.err
    assert "git would read it and block" in said.err


IN_THE_WORK_TREE = (
    ".gitignore",
    ".gitattributes",
    "sub/.gitignore",
    "sub/.gitattributes",
    "defs/.gitignore",
    f"defs/{STATE}/.gitignore",
    f"defs/{STATE}/K/.gitignore",
)


@pytest.mark.parametrize("kind", [FIFO, DEVICE, SOCKET, LINK])
@pytest.mark.parametrize("path", IN_THE_WORK_TREE)
def test_in_the_work_tree(repository: WorkDir, path: str, kind: str) -> None:
    put(repository.path / path, kind)
    is_refused(repository, Path(path).name)


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


@pytest.mark.parametrize("moment", ["", "--staged --strict", "--history"])
@pytest.mark.parametrize("path", IN_THE_REPOSITORY)
def test_in_the_repository(repository: WorkDir, path: str, moment: str) -> None:
    put(repository.path / ".git" / path, FIFO)
    is_refused(repository, Path(path).name, *moment.split())


@pytest.mark.parametrize("path", IN_THE_REPOSITORY)
def test_the_quick_way_does_not_wait(repository: WorkDir, path: str) -> None:
    """It reads the index alone; whatever else it wants to know and cannot, it leaves to git."""
    put(repository.path / ".git" / path, FIFO)
    assert repository.guard("--staged").code in (0, 71)


@pytest.mark.parametrize("path", ["HEAD", "config", "index", "info/exclude"])
def test_in_a_linked_work_tree(repository: WorkDir, path: str) -> None:
    repository("git worktree add -q ../linked")
    own = repository.path / ".git/worktrees/linked" / path
    put(own if own.exists() else repository.path / ".git" / path, FIFO)
    is_refused(repository.at("../linked"), Path(path).name)


@pytest.mark.parametrize("kind", [FIFO, DEVICE])
@pytest.mark.parametrize(
    "setting",
    ["core.excludesFile", "core.attributesFile", "include.path", "includeIf.gitdir:/.path"],
)
@pytest.mark.parametrize("relative", [True, False])
def test_named_by_the_configuration(
    repository: WorkDir, setting: str, kind: str, *, relative: bool
) -> None:
    folder = repository.path / ".git" if "include" in setting else repository.path
    put(folder / "named", kind)
    with (repository.path / ".git/config").open("a") as config:
        section, _, name = setting.rpartition(".")
        header = section.partition(".")
        title = f'[{header[0]} "{header[2]}"]' if header[1] else f"[{section}]"
        config.write(f"{title}\n\t{name} = {'named' if relative else folder / 'named'}\n")
    is_refused(repository, "named")


@pytest.mark.parametrize(
    "line",
    [
        '[core]\n\texcludesFile = "~/named"\n',
        "[core] excludesfile=~/named # ours\n",
        "[CORE]\n  EXCLUDESFILE   =   ~/named   \n",
        "[include]\n\tpath = ~/more\n",
    ],
)
def test_named_by_the_user_s_configuration(repository: WorkDir, line: str) -> None:
    home = Path(repository.env["HOME"])
    put(home / "named", FIFO)
    (home / "more").write_text("[core]\n\texcludesFile = ~/named\n")
    (home / ".gitconfig").write_text(line)
    is_refused(repository, "named")


@pytest.mark.parametrize("name", [".gitconfig", ".config/git/config", ".config/git/ignore"])
def test_of_the_user(repository: WorkDir, name: str) -> None:
    put(Path(repository.env["HOME"]) / name, FIFO)
    is_refused(repository, Path(name).name)


def test_named_by_the_environment(repository: WorkDir, tmp_path: Path) -> None:
    put(tmp_path / "named", FIFO)
    is_refused(repository, "named", env={"GIT_CONFIG_GLOBAL": str(tmp_path / "named")})
    settings = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.excludesFile",
        "GIT_CONFIG_VALUE_0": str(tmp_path / "named"),
    }
    is_refused(repository, "named", env=settings)


def test_a_project_file(repository: WorkDir) -> None:
    """git does not read it, and we do not wait for it, either."""
    for name in ("pyproject.toml", "sub/dg.toml"):
        put(repository.path / name, FIFO)
    repository.write(".gitignore", f"{STATE}\n")
    assert repository.guard().code == 0
    assert repository.guard("--staged").code == 0


@pytest.mark.parametrize("name", [".gitignore", ".gitattributes"])
def test_what_does_not_block(repository: WorkDir, name: str) -> None:
    repository.write(".git/info/exclude", f"{STATE}\n")
    (repository.path / name).symlink_to("/dev/null")
    (repository.path / "sub" / name).mkdir()
    repository("git config core.attributesFile /dev/null")
    Path(repository.env["HOME"], ".gitconfig").symlink_to("/dev/null")
    assert repository.guard().code == 0


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


@pytest.mark.parametrize("path", [".gitignore", ".gitattributes", "sub/.gitignore"])
@pytest.mark.parametrize("kind", [FIFO, DEVICE, LINK])
def test_the_identity_of_the_code_does_not_wait(repository: WorkDir, path: str, kind: str) -> None:
    put(repository.path / path, kind)
    with pytest.raises(ToolFailed, match=r"\.git(ignore|attributes)"):
        code_identity(repository.path / "sub")
