"""Real clients: the pre-commit framework, with its own environment and with ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environments import ROOT
from tests.support.workdir import GUARD, STATE, WorkDir

PRE_COMMIT = [sys.executable, "-m", "pre_commit"]
FILE = f"defs/{STATE}/K/state"
LOCAL = f"""\
repos:
- repo: local
  hooks:
  - id: guard
    name: guard
    entry: {GUARD} --staged
    language: system
    pass_filenames: false
    always_run: true
"""


@pytest.fixture
def repository(wd: WorkDir) -> WorkDir:
    wd.env["PRE_COMMIT_HOME"] = str(wd.path.parent / "pre-commit")
    wd.write("code.py")
    wd.write(".pre-commit-config.yaml", LOCAL)
    wd.commit()
    return wd


def leak(wd: WorkDir) -> None:
    wd.write(FILE)
    wd("git add -f -A")


def run(wd: WorkDir, *arguments: str) -> tuple[int, str]:
    done = wd.run([*PRE_COMMIT, *arguments])
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.slow
def test_repo_local(repository: WorkDir) -> None:
    repository([*PRE_COMMIT, "install"])
    repository.write("more.py")
    repository.commit()
    leak(repository)
    done = repository.run("git commit -m x")
    assert done.returncode == 1
    assert b"The state file" in done.stdout + done.stderr


@pytest.mark.slow
def test_all_files(repository: WorkDir) -> None:
    assert run(repository, "run", "--all-files")[0] == 0
    leak(repository)
    assert run(repository, "run", "--all-files")[0] == 1


@pytest.mark.slow
def test_from_ref_to_ref(repository: WorkDir) -> None:
    """As CI calls it: a leak that a later commit removes is in the range, if not in the index."""
    base = repository("git rev-parse HEAD")
    repository.write("more.py")
    repository.commit()
    assert run(repository, "run", "--from-ref", base, "--to-ref", "HEAD")[0] == 0
    leak(repository)
    repository.commit("leak", add=False)
    repository("git rm -rq --cached defs")
    repository.commit("cure", add=False)
    code, said = run(repository, "run", "--from-ref", base, "--to-ref", "HEAD")
    assert code == 1
    assert "adds the state file" in said
    assert run(repository, "run", "--from-ref", "HEAD^", "--to-ref", "HEAD")[0] == 0


def snapshot(wd: WorkDir) -> WorkDir:
    """This project as it is here, as a repository that pre-commit can clone."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "bundler", "hooks", "templates", ".pre-commit-hooks.yaml"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    project = WorkDir(wd.path.parent / "project", wd.env)
    project.path.mkdir()
    names = [*listing.stdout.decode().split("\0")[:-1], "pyproject.toml", "README.md", "LICENSE"]
    for name in names:
        target = project.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    project("git init -q --initial-branch=main")
    project("git add -f -A")
    project.commit("project", add=False)
    return project


@pytest.mark.slow
def test_the_published_hooks(repository: WorkDir, tmp_path: Path) -> None:
    """Installed by the framework from the repository, driven by commit, push and try-repo."""
    del repository.env["PYTHONDONTWRITEBYTECODE"]  # pip starts several times in a new environment
    project = snapshot(repository)
    revision = project("git rev-parse HEAD")
    hooks = "".join(f"  - id: {name}\n" for name in ("no-committed-state", "no-pushed-state"))
    repository.write(
        ".pre-commit-config.yaml",
        f"repos:\n- repo: {project.path}\n  rev: {revision}\n  hooks:\n{hooks}",
    )
    repository.commit()
    kinds = ["pre-commit", "pre-merge-commit", "pre-push"]
    repository([*PRE_COMMIT, "install", *(f"--hook-type={kind}" for kind in kinds)])
    repository(["git", "init", "-q", "--bare", str(tmp_path / "remote.git")])
    repository(["git", "remote", "add", "origin", str(tmp_path / "remote.git")])
    repository.write("more.py")
    repository.commit()
    repository("git push -q origin main")

    leak(repository)
    done = repository.run("git commit -m x")
    assert done.returncode == 1
    assert b"The state file" in done.stdout + done.stderr
    repository("git commit -q --no-verify -m leak")
    repository("git rm -rq --cached defs")
    repository("git commit -q -m cure")
    done = repository.run("git push origin main")
    assert done.returncode == 1
    assert b"adds the state file" in done.stdout + done.stderr
    repository("git push -q --no-verify origin main")
    repository(["git", "init", "-q", "--bare", str(tmp_path / "fork.git")])
    assert repository.run(f"git remote add fork {tmp_path}/fork.git").returncode == 0
    assert repository.run("git push fork main").returncode == 1

    manual = ["run", "--hook-stage", "manual"]
    assert run(repository, *manual, "no-committed-state")[0] == 1  # not of this stage
    code, said = run(repository, "try-repo", "--ref", revision, str(project.path), "--verbose")
    assert code == 0, said
