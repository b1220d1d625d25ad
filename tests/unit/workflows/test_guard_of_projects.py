"""The guard before a build of many projects: each repository is asked once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bundler.errors import Findings
from bundler.project.projects import Project, open_project
from bundler.workflows.pipeline import check_guard
from tests.support.recording import RecordingListener
from tests.support.workdir import STATE, WorkDir

DG = '[project]\nname = "{name}"\nversion = "1"\n[tool.dg.project]\nroot_module = "shop"\n'


def make(wd: WorkDir, name: str) -> Project:
    wd.write(f"{name}/pyproject.toml", DG.format(name=name))
    wd.write(f"{name}/src/shop/defs/__init__.py", "")
    return open_project(wd.path / name, python=Path(sys.executable))


@pytest.fixture
def workspace(wd: WorkDir, monkeypatch: pytest.MonkeyPatch) -> WorkDir:
    for name, value in wd.env.items():
        monkeypatch.setenv(name, value)
    return wd


def test_one_warning_for_seven_projects(workspace: WorkDir) -> None:
    projects = [make(workspace, f"p{number}") for number in range(7)]
    workspace.commit("code")
    listener = RecordingListener()
    check_guard(projects, listener)
    (text,) = listener.warnings
    assert "p0/src/shop/defs" in text
    assert "and 3 more" in text


def test_what_a_project_allows_is_allowed(workspace: WorkDir) -> None:
    projects = [make(workspace, "a"), make(workspace, "b")]
    workspace.write(".gitignore", f"{STATE}\n")
    with (workspace.path / "b/pyproject.toml").open("a") as file:
        file.write('[tool.state-bundler]\nguard.allow = ["fixtures/*"]\n')
    for path in (f"b/fixtures/x/{STATE}/K/state", f"a/fixtures/x/{STATE}/K/state"):
        workspace.write(path)
    workspace("git add -f -A")
    workspace.commit("code", add=False)
    projects[1] = open_project(workspace.path / "b", python=Path(sys.executable))
    with pytest.raises(Findings, match="a/fixtures") as caught:
        check_guard(projects, RecordingListener())
    assert "b/fixtures" not in caught.value.what


def test_each_repository_is_asked(workspace: WorkDir, tmp_path: Path) -> None:
    other = WorkDir.make(tmp_path / "other")
    projects = [make(workspace, "a"), make(other, "b")]
    workspace.commit("code")
    other.write(f"b/src/shop/defs/{STATE}/K/state")
    other("git add -f -A")
    other.commit("leak", add=False)
    with pytest.raises(Findings, match="b/src/shop/defs"):
        check_guard(projects, RecordingListener())
