"""Commits that are pushed and received, and all of history: judged by real git pushes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler import git
from tests.support.workdir import GUARD, STATE, WorkDir

FILE = f"defs/{STATE}/Orders/state"


@pytest.fixture
def local(wd: WorkDir, tmp_path: Path) -> WorkDir:
    """A repository with a remote that has its first commit, and the guard before every push."""
    wd.write("code.py")
    wd.commit("code")
    wd(["git", "init", "-q", "--bare", "--initial-branch=main", str(tmp_path / "remote.git")])
    wd(["git", "remote", "add", "origin", str(tmp_path / "remote.git")])
    wd("git push -q -u origin main")
    hook(wd.path / ".git", "pre-push", '--push --remote "$1"')
    return wd


def hook(git_dir: Path, name: str, arguments: str) -> None:
    path = git_dir / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec "{GUARD}" {arguments}\n')
    path.chmod(0o755)


def leak(wd: WorkDir, path: str = FILE) -> None:
    wd.write(path)
    wd(["git", "--literal-pathspecs", "add", "-f", path])
    wd.commit("leak", add=False)


def cure(wd: WorkDir) -> None:
    wd("git rm -rq --cached defs")
    wd.commit("cure", add=False)


def refused(wd: WorkDir, command: str) -> bool:
    done = wd.run(command)
    if done.returncode:
        assert b" adds the state file " in done.stderr, done.stderr
    return done.returncode != 0


def test_push_of_code(local: WorkDir) -> None:
    local.write("more.py")
    local.commit()
    assert not refused(local, "git push origin main")
    assert not refused(local, "git push origin main")


def test_push_of_a_leak(local: WorkDir) -> None:
    leak(local)
    assert refused(local, "git push origin main")


def test_push_of_a_leak_that_a_later_commit_removes(local: WorkDir) -> None:
    leak(local)
    cure(local)
    assert local.guard("--staged").code == 0
    assert refused(local, "git push origin main")


def test_push_after_an_older_leak(local: WorkDir) -> None:
    """What the remote has already is no reason to keep the cure from it."""
    leak(local)
    local("git push -q --no-verify origin main")
    local.write("more.py")
    local.commit()
    assert not refused(local, "git push origin main")
    cure(local)
    assert not refused(local, "git push origin main")


def test_push_of_a_new_branch(local: WorkDir) -> None:
    local("git checkout -q -b feature")
    local.write("more.py")
    local.commit()
    assert not refused(local, "git push origin feature")
    leak(local)
    assert refused(local, "git push origin feature")
    assert refused(local, "git push origin HEAD:refs/heads/other")


def test_push_to_another_remote(local: WorkDir, tmp_path: Path) -> None:
    """The other remote has none of the commits that origin has."""
    leak(local)
    local("git push -q --no-verify origin main")
    local(["git", "init", "-q", "--bare", str(tmp_path / "fork.git")])
    local(["git", "remote", "add", "fork", str(tmp_path / "fork.git")])
    assert refused(local, "git push fork main")
    assert refused(local, f"git push {tmp_path}/fork.git main")


@pytest.mark.parametrize("branch", ["main", "leaky"])
def test_first_push_with_the_pre_commit_framework(local: WorkDir, branch: str) -> None:
    """It passes no range on, nor git's input, but the branch and the remote."""
    local("git branch leaky")
    local("git checkout -q leaky")
    leak(local)
    local("git push -q --no-verify origin leaky")
    local("git checkout -q main")
    variables = {"LOCAL_BRANCH": f"refs/heads/{branch}", "REMOTE_NAME": "fork"}
    env = {f"PRE_COMMIT_{name}": value for name, value in variables.items()}
    assert local.guard("--push", env=env).code == (branch == "leaky")


def test_push_of_a_deletion(local: WorkDir) -> None:
    local("git push -q origin main:other")
    leak(local)
    assert not refused(local, "git push origin :other")


def test_push_of_a_merge_that_brings_an_older_leak(local: WorkDir) -> None:
    local("git branch feature")
    leak(local)
    local("git push -q --no-verify origin main")
    local("git checkout -q feature")
    local.write("more.py")
    local.commit()
    local("git merge -q --no-edit main")
    assert not refused(local, "git push origin feature")


def test_push_of_a_merge_that_adds_state_itself(local: WorkDir) -> None:
    local("git checkout -q -b feature")
    local.write("more.py")
    local.commit()
    local("git checkout -q main")
    local.write("other.py")
    local.commit()
    local("git merge -q --no-commit --no-ff feature")
    local.write(FILE)
    local("git add -f -A")
    local("git commit -q -m merge")
    assert refused(local, "git push origin main")


def test_push_of_a_merged_branch_that_added_and_removed_it(local: WorkDir) -> None:
    local("git checkout -q -b feature")
    leak(local)
    cure(local)
    local("git checkout -q main")
    local.write("other.py")
    local.commit()
    local("git merge -q --no-edit feature")
    assert refused(local, "git push origin main")
    assert local.guard("--history").code == 1


@pytest.mark.parametrize("tag", ["tag light", "tag -a -m x annotated"])
def test_push_of_a_tag(local: WorkDir, tag: str) -> None:
    leak(local)
    local(f"git {tag}")
    local("git reset -q --hard HEAD^")
    assert refused(local, f"git push origin {tag.rsplit(maxsplit=1)[-1]}")


def test_push_of_a_tag_that_names_a_tree(local: WorkDir) -> None:
    local.write(FILE)
    local("git add -f -A")
    local(["git", "tag", "tree", local("git write-tree")])
    local("git reset -q --hard")
    done = local.run("git push origin tree")
    assert done.returncode == 1
    assert b"contains the state file" in done.stderr
    assert "contains the state file" in local.guard("--history").errors[0]


def test_push_of_everything(local: WorkDir) -> None:
    local("git checkout -q -b feature")
    leak(local)
    local("git checkout -q main")
    local.write("more.py")
    local.commit()
    assert refused(local, "git push --all origin")
    assert refused(local, "git push --mirror origin")


def test_force_push_over_a_commit_that_is_not_here(local: WorkDir, tmp_path: Path) -> None:
    local(["git", "clone", "-q", str(tmp_path / "remote.git"), str(tmp_path / "other")])
    other = WorkDir(tmp_path / "other", local.env)
    other.write("theirs.py")
    other.commit()
    other("git push -q origin main")
    local.write("mine.py")
    local.commit()
    assert not refused(local, "git push --force origin main")
    leak(local)
    assert refused(local, "git push --force origin main")


def test_push_asked_by_hand(local: WorkDir) -> None:
    assert local.guard("--push").code == 0
    leak(local)
    assert local.guard("--push").code == 1
    local("git push -q --no-verify origin main")
    assert local.guard("--push").code == 0


def test_push_without_the_hook_s_input(local: WorkDir) -> None:
    """Some frameworks do not pass it on: any branch may be the one that is pushed."""
    local("git checkout -q -b other")
    leak(local)
    local("git checkout -q main")
    assert local.guard("--push", "--remote", "origin").code == 1
    local("git push -q --no-verify origin other")
    assert local.guard("--push", "--remote", "origin").code == 0


def test_nonsense_on_the_standard_input(local: WorkDir) -> None:
    assert local.guard("--push", stdin=b"what\n").code == 71
    gone = "1" * 40
    line = f"refs/heads/main {gone} refs/heads/main {'0' * 40}\n"
    assert local.guard("--push", stdin=line.encode()).code == 71
    assert local.guard("--receive", stdin=b"").code == 71


def test_push_of_a_configured_directory(local: WorkDir) -> None:
    local.write("pyproject.toml", '[[tool.state-bundler.source]]\npath = "var/state"\n')
    local("git add -A")
    local.commit()
    leak(local, "var/state/K/state")
    assert refused(local, "git push origin main")


@pytest.mark.slow
def test_push_of_another_branch(local: WorkDir) -> None:
    """What counts is what the pushed commits configure and allow, not what is checked out."""
    local("git checkout -q -b other")
    local.write("shop/pyproject.toml", '[[tool.state-bundler.source]]\npath = "var/state"\n')
    local.commit()
    leak(local, "shop/var/state/K/state")
    local("git rm -rq shop")  # a later commit does not change what the one before is
    local.commit("no project", add=False)
    local("git checkout -q -b fixtures main")
    local.write("shop/pyproject.toml", '[tool.state-bundler]\nguard.allow = ["tests"]\n')
    leak(local, f"shop/tests/{STATE}/K/state")
    local("git checkout -q main")
    assert refused(local, "git push origin other")
    assert refused(local, "git push origin fixtures")
    local("git checkout -q fixtures")
    local.commit("with its project file")
    local("git checkout -q main")
    assert not refused(local, "git push origin fixtures")
    assert local.guard("--history").code == 1


def test_push_of_an_expression(local: WorkDir) -> None:
    local.commit("Fix a bug")
    assert not refused(local, "git push origin ':/Fix a bug:refs/heads/fix'")


def test_more_commits_than_fit_in_a_command_line(local: WorkDir) -> None:
    repository = git.open_repository(local.path)
    assert repository is not None
    known = [local.head()] * 60_000
    local.commit("new")
    assert git.commits(repository, [local.head()], known, (), ()) == [local.head().encode()]


# --- the server's side ----------------------------------------------------------------------


@pytest.fixture
def server(local: WorkDir, tmp_path: Path) -> WorkDir:
    """The remote guards itself, and the local repository does not."""
    (local.path / ".git/hooks/pre-push").unlink()
    hook(tmp_path / "remote.git", "pre-receive", "--receive")
    return WorkDir(tmp_path / "remote.git", local.env)


@pytest.mark.slow
def test_receive(local: WorkDir, server: WorkDir) -> None:
    local.write("more.py")
    local.commit()
    assert not refused(local, "git push origin main")
    leak(local)
    before = server("git for-each-ref")
    assert refused(local, "git push origin main")
    assert server("git for-each-ref") == before
    cure(local)
    assert refused(local, "git push origin main")
    local("git reset -q --hard HEAD^^")
    assert not refused(local, "git push origin main")


@pytest.mark.slow
def test_receive_of_a_new_branch_and_a_deletion(local: WorkDir, server: WorkDir) -> None:
    assert not refused(local, "git push origin main:other")
    leak(local)
    assert refused(local, "git push origin main:third")
    assert not refused(local, "git push origin :other")
    assert "third" not in server("git branch")


@pytest.mark.slow
def test_receive_from_a_shallow_clone(local: WorkDir, server: WorkDir, tmp_path: Path) -> None:
    remote = f"file://{tmp_path}/remote.git"
    local(["git", "clone", "-q", "--depth=1", remote, str(tmp_path / "shallow")])
    shallow = WorkDir(tmp_path / "shallow", local.env)
    shallow.write("more.py")
    shallow.commit()
    assert not refused(shallow, "git push origin main")
    leak(shallow)
    assert refused(shallow, "git push origin main")


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("project", ["", "shop/"])
def test_what_the_server_takes_from_project_files(
    local: WorkDir, server: WorkDir, project: str
) -> None:
    """The allowed fixtures and the sources are those of the commit that is pushed."""
    local.write(
        f"{project}pyproject.toml",
        '[tool.state-bundler]\nguard.allow = ["tests/*"]\nsource = [{ path = "var/state" }]\n',
    )
    local.write(f"{project}tests/{STATE}/K/state")
    local("git add -f -A")
    local.commit()
    assert not refused(local, "git push origin main")
    leak(local, f"{project}var/state/K/state")
    assert refused(local, "git push origin main")


# --- history --------------------------------------------------------------------------------


def test_history_names_the_commit(local: WorkDir) -> None:
    leak(local)
    commit = local.head()
    cure(local)
    said = local.guard("--history")
    assert said.code == 1
    assert said.errors == [f"✗ findings (1): Commit {commit[:12]} adds the state file {FILE}."]


@pytest.mark.parametrize(
    "hide",
    [
        ["git checkout -q -b side", "LEAK", "git checkout -q main"],
        ["LEAK", "git tag kept", "git reset -q --hard HEAD^"],
        ["LEAK", "git update-ref refs/notes/odd HEAD", "git reset -q --hard HEAD^"],
        ["LEAK", "git push -q --no-verify origin main", "git reset -q --hard HEAD^"],
        ["git checkout -q --orphan root", "LEAK", "git checkout -q -f main"],
        ["git worktree add -q --detach ../linked", "LINKED"],
        ["LEAK", "git mv defs moved", "git commit -q -m moved", "git rm -rq moved", "COMMIT"],
    ],
)
def test_history_reaches_everything(local: WorkDir, hide: list[str]) -> None:
    for step in hide:
        if step == "LEAK":
            leak(local)
        elif step == "LINKED":
            leak(local.at("../linked"))
        elif step == "COMMIT":
            local.commit("gone", add=False)
        else:
            local(step)
    assert local.guard().code == 0
    assert local.guard("--history").code == 1


def test_history_finds_copies_of_a_state_that_no_project_names(wd: WorkDir) -> None:
    wd.write(f"tools/{STATE}/.gitignore", "*\n")
    wd.write(f"tools/{STATE}/key/state", "a state that is long enough to differ from others" * 9)
    wd.write("copy.txt", "a state that is long enough to differ from others" * 9)
    wd.commit()
    wd("git rm -q copy.txt")
    wd.commit("gone", add=False)
    assert "copy.txt" in wd.guard("--history").errors[0]


def test_history_without_a_commit(wd: WorkDir) -> None:
    assert wd.guard("--history").code == 0


def test_history_of_what_no_ref_reaches(local: WorkDir) -> None:
    leak(local)
    local("git reset -q --hard HEAD^")
    assert local.guard("--history").code == 0


def test_history_with_odd_names(local: WorkDir) -> None:
    leak(local, f":x\n*/{STATE}/-k/st ate")
    local("git rm -rq --cached .")
    local.commit("cure", add=False)
    said = local.guard("--history", "--format=json")
    assert said.code == 1
    assert local.guard("--history", "--allow", f":x\n*/{STATE}").code == 0
