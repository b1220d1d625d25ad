"""git's own hooks, installed next to it whatever is there, and driven by git."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bundler.errors import ToolFailed, UsageError
from bundler.guard import git_hooks
from tests.support.environments import ROOT
from tests.support.workdir import STATE, WorkDir

FILE = f"defs/{STATE}/K/state"


@pytest.fixture
def repository(wd: WorkDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WorkDir:
    for name, value in wd.env.items():
        monkeypatch.setenv(name, value)
    wd.write("code.py")
    wd.commit()
    wd(["git", "init", "-q", "--bare", str(tmp_path / "remote.git")])
    wd(["git", "remote", "add", "origin", str(tmp_path / "remote.git")])
    return wd


def actions(wd: WorkDir) -> list[str]:
    return [hook.action for hook in git_hooks.install(wd.path)]


def script(wd: WorkDir, name: str, text: str) -> Path:
    path = wd.path / ".git" / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def leak(wd: WorkDir) -> None:
    wd.write(FILE)
    wd("git add -f -A")


def test_install_and_again(repository: WorkDir) -> None:
    assert actions(repository) == ["installed"] * 3
    assert actions(repository) == ["unchanged"] * 3
    repository.write("more.py")
    repository.commit()
    repository("git push -q origin main")
    leak(repository)
    assert b"The state file" in repository.run("git commit -m x").stderr
    repository("git commit -q --no-verify -m x")
    assert b"adds the state file" in repository.run("git push origin main").stderr


def test_merge(repository: WorkDir) -> None:
    repository("git checkout -q -b feature")
    leak(repository)
    repository("git commit -q -m x")
    repository("git checkout -q main")
    repository.write("more.py")
    repository.commit()
    actions(repository)
    assert repository.run("git merge --no-edit feature").returncode == 1


def test_next_to_another_hook(repository: WorkDir) -> None:
    ran = repository.path.parent / "ran"
    script(repository, "pre-commit", f"echo commit >> {ran}")
    script(repository, "pre-push", f'echo push "$1" >> {ran}; cat >> {ran}')
    assert actions(repository) == ["installed next to it", "installed", "installed next to it"]
    assert actions(repository) == ["unchanged"] * 3
    repository.write("more.py")
    repository.commit()
    repository("git push -q origin main")
    assert ran.read_text().startswith("commit\npush origin\nrefs/heads/main ")
    leak(repository)
    assert repository.run("git commit -m x").returncode == 1


def test_another_hook_that_refuses(repository: WorkDir) -> None:
    script(repository, "pre-commit", "echo no >&2; exit 3")
    script(repository, "pre-push", "cat > /dev/null; exit 1")
    actions(repository)
    repository.write("more.py")
    repository("git add -A")
    assert b"no\n" in repository.run("git commit -m x").stderr
    assert repository.run("git push origin main").returncode == 1


def test_two_other_hooks_are_not_ours_to_sort_out(repository: WorkDir) -> None:
    script(repository, "pre-commit", "true")
    script(repository, "pre-commit.before", "true")
    with pytest.raises(UsageError, match="both hooks of another program"):
        git_hooks.install(repository.path)


def test_an_older_one_is_updated(repository: WorkDir) -> None:
    script(repository, "pre-commit", "# A part of state-bundler\nexit 1")
    assert actions(repository)[0] == "updated"
    repository.write("more.py")
    repository.commit()


@pytest.mark.slow
def test_next_to_the_pre_commit_framework(repository: WorkDir) -> None:
    repository.write(".pre-commit-config.yaml", "repos: []\n")
    repository.commit()
    assert not git_hooks.starts_framework(repository.path)
    repository([sys.executable, "-m", "pre_commit", "install"])
    assert git_hooks.starts_framework(repository.path)
    assert actions(repository)[0] == "installed next to it"
    assert actions(repository) == ["unchanged"] * 3
    assert (repository.path / ".git/hooks/pre-commit.legacy").exists()
    repository.write("more.py")
    repository.commit()
    leak(repository)
    assert b"The state file" in repository.run("git commit -m x").stderr


def test_in_a_linked_work_tree(repository: WorkDir, tmp_path: Path) -> None:
    repository(["git", "worktree", "add", "-q", str(tmp_path / "linked")])
    linked = WorkDir(tmp_path / "linked", repository.env)
    git_hooks.install(linked.path)
    leak(linked)
    assert linked.run("git commit -m x").returncode == 1


def test_a_shared_hooks_directory_is_left_alone(repository: WorkDir, tmp_path: Path) -> None:
    repository(["git", "config", "core.hooksPath", str(tmp_path / "shared")])
    with pytest.raises(UsageError, match=r"core.hooksPath") as caught:
        git_hooks.install(repository.path)
    assert "state-guard --staged" in caught.value.hint
    assert not (tmp_path / "shared").exists()


def test_hooks_that_are_switched_off(repository: WorkDir) -> None:
    actions(repository)
    repository("git config --global core.hooksPath /dev/null")
    assert not git_hooks.is_installed(repository.path)
    with pytest.raises(UsageError, match=r"core\.hooksPath points to /dev/null") as caught:
        git_hooks.install(repository.path)
    _, _, command = caught.value.hint.partition(": ")
    file = Path(repository(command.split()).partition("\t")[0].removeprefix("file:"))
    repository(["git", "config", "--file", str(file), "--unset", "core.hooksPath"])
    assert git_hooks.is_installed(repository.path)


def test_the_default_directory_named_as_hooks_path(repository: WorkDir) -> None:
    repository("git config core.hooksPath .git/hooks")
    actions(repository)
    assert git_hooks.is_installed(repository.path)
    leak(repository)
    assert repository.run("git commit -m x").returncode == 1


def test_a_hook_that_cannot_be_executed(repository: WorkDir) -> None:
    actions(repository)
    (repository.path / ".git/hooks/pre-commit").chmod(0o644)
    assert not git_hooks.is_installed(repository.path)
    assert actions(repository)[0] == "updated"
    assert git_hooks.is_installed(repository.path)


HOOK = "#!/bin/sh\ncall {}\n"
MANAGERS = {
    "husky": (".husky/_", {".husky/_/pre-commit": HOOK, ".husky/pre-commit": "state-guard\n"}),
    "lefthook": ("", {".git/hooks/pre-commit": HOOK, "lefthook.yml": "run: state-guard --staged"}),
    "overcommit": ("", {".git/hooks/pre-commit": HOOK, ".overcommit.yml": "- state-guard"}),
}


@pytest.mark.parametrize("name", MANAGERS)
def test_hooks_of_a_manager(repository: WorkDir, name: str) -> None:
    path, files = MANAGERS[name]
    if path:
        repository(["git", "config", "core.hooksPath", path])
    for file, text in files.items():
        repository.write(file, text)
    assert not git_hooks.is_installed(repository.path)  # git runs no hook of the manager's yet
    (repository.path / next(iter(files))).chmod(0o755)
    assert git_hooks.is_installed(repository.path)
    if path:
        with pytest.raises(UsageError) as caught:
            git_hooks.install(repository.path)
        assert f"the hooks in {repository.path}/.husky: pre-commit: " in caught.value.hint


def test_without_the_installation_git_refuses(repository: WorkDir) -> None:
    actions(repository)
    hook = repository.path / ".git/hooks/pre-commit"
    hook.write_text(hook.read_text().replace(str(Path(sys.prefix)), "/gone"))
    repository.write("more.py")
    repository("git add -A")
    path = "/usr/local/bin:/usr/bin:/bin"
    assert repository.run("git commit -m x", env={"PATH": path}).returncode == 1
    assert repository.run("git commit -m x").returncode == 0  # one on the PATH does


def test_without_a_repository(
    tmp_path: Path, repository: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "none").mkdir()
    with pytest.raises(ToolFailed, match="not in a git repository"):
        git_hooks.install(tmp_path / "none")


@pytest.mark.parametrize("name", ["pre-commit", "pre-merge-commit", "pre-push", "pre-receive"])
def test_the_shipped_scripts(wd: WorkDir, name: str) -> None:
    """They are what a server's administrator copies: plain sh, executable, state-guard by name."""
    script_path = ROOT / "hooks" / name
    assert script_path.stat().st_mode & 0o111
    assert "guard=state-guard\n" in script_path.read_text()
    assert wd.run(["sh", "-n", str(script_path)]).returncode == 0
