"""An interpreter that git tracks, or that a tracked link leads to, is not run without --python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.errors import ConfigurationError
from bundler.project.projects import find_interpreter
from tests.support.workdir import WorkDir

BIN = Path(sys.executable).parent
SOURCE = (
    '[project]\nname = "shop"\nversion = "1"\n'
    '[[tool.state-bundler.source]]\nkey = "K"\ncomponent = "shop.catalog:Catalog"\n'
    'path = "src/shop/state"\n'
)


@pytest.fixture
def project(wd: WorkDir, monkeypatch: pytest.MonkeyPatch) -> WorkDir:
    wd.write("pyproject.toml", SOURCE)
    wd.write("src/shop/catalog.py", "")
    wd.commit("code")
    for name, value in wd.env.items():
        monkeypatch.setenv(name, value)
    return wd


def environment(folder: Path, *, marker: Path | None = None) -> None:
    """A virtual environment whose interpreter leaves a marker when it is run."""
    (folder / "bin").mkdir(parents=True)
    (folder / "lib/python3/site-packages").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {BIN}\n")
    if marker is None:
        (folder / "bin/python").symlink_to(sys.executable)
    else:
        (folder / "bin/python").write_text(f'#!/bin/sh\ntouch "{marker}"\nexit 1\n')
        (folder / "bin/python").chmod(0o755)


def track(wd: WorkDir, *paths: str) -> None:
    wd(["git", "add", "-f", "--", *paths])


def a_file(wd: WorkDir, tmp_path: Path) -> None:
    environment(wd.path / ".venv", marker=tmp_path / "marker")
    track(wd, ".venv/bin/python")


def a_link_to_it(wd: WorkDir, tmp_path: Path) -> None:
    environment(wd.path / ".venv")
    track(wd, ".venv/bin/python")


def a_link_of_the_environment(wd: WorkDir, tmp_path: Path) -> None:
    environment(tmp_path / "elsewhere")
    (wd.path / ".venv").symlink_to(tmp_path / "elsewhere")
    track(wd, ".venv")


def a_link_of_bin(wd: WorkDir, tmp_path: Path) -> None:
    environment(wd.path / ".venv")
    (wd.path / ".venv/bin").rename(tmp_path / "bin")
    (wd.path / ".venv/bin").symlink_to(tmp_path / "bin")
    track(wd, ".venv/bin")


def what_a_link_leads_to(wd: WorkDir, tmp_path: Path) -> None:
    environment(wd.path / ".venv")
    wd.write("tools/python", "#!/bin/sh\n").chmod(0o755)
    (wd.path / ".venv/bin/python").unlink()
    (wd.path / ".venv/bin/python").symlink_to("../../tools/python")
    track(wd, "tools/python")


def a_link_on_the_way(wd: WorkDir, tmp_path: Path) -> None:
    environment(wd.path / ".venv")
    (wd.path / "way").symlink_to(BIN)
    (wd.path / ".venv/bin/python").unlink()
    (wd.path / ".venv/bin/python").symlink_to("../../way/python")
    track(wd, "way")


def in_a_tracked_environment_behind_a_link(wd: WorkDir, tmp_path: Path) -> None:
    environment(wd.path / "envs/1")
    track(wd, "envs")
    (wd.path / ".venv").symlink_to("envs/1")


def its_configuration(wd: WorkDir, tmp_path: Path) -> None:
    environment(wd.path / ".venv")
    track(wd, ".venv/pyvenv.cfg")


def sitecustomize(wd: WorkDir, tmp_path: Path) -> None:
    environment(wd.path / ".venv")
    wd.write(".venv/lib/python3/site-packages/sitecustomize.py", "")
    track(wd, ".venv/lib")


def a_path_file(wd: WorkDir, tmp_path: Path) -> None:
    environment(wd.path / ".venv")
    wd.write(".venv/lib/python3/site-packages/x.pth", "import os\n")
    track(wd, ".venv/lib")


def another_program(wd: WorkDir, tmp_path: Path) -> None:
    environment(wd.path / ".venv")
    wd.write(".venv/bin/pex", "#!/bin/sh\n")
    track(wd, ".venv/bin/pex")


TRACKED: list[Callable[[WorkDir, Path], None]] = [
    a_file,
    a_link_to_it,
    a_link_of_the_environment,
    a_link_of_bin,
    what_a_link_leads_to,
    a_link_on_the_way,
    in_a_tracked_environment_behind_a_link,
    its_configuration,
    sitecustomize,
    a_path_file,
    another_program,
]


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("case", TRACKED)
def test_what_git_tracks_is_not_run(
    project: WorkDir,
    tmp_path: Path,
    case: Callable[[WorkDir, Path], None],
    *,
    committed: bool,
) -> None:
    case(project, tmp_path)
    if committed:
        project.commit("environment", add=False)
    with pytest.raises(ConfigurationError, match="is committed to the repository") as caught:
        find_interpreter(project.path, project.path, environ={})
    named = Path(caught.value.hint.rpartition(" ")[2])
    assert named == project.path / ".venv/bin/python"
    assert find_interpreter(project.path, project.path, python=named).path == named


@pytest.mark.parametrize(
    "index", ["git update-index --index-version 4", "git update-index --split-index"]
)
def test_in_every_format_of_the_index(project: WorkDir, tmp_path: Path, index: str) -> None:
    a_file(project, tmp_path)
    project(index)
    with pytest.raises(ConfigurationError):
        find_interpreter(project.path, project.path, environ={})


@pytest.mark.parametrize("named_by", ["UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV", "python", "PATH"])
def test_however_it_is_found(project: WorkDir, tmp_path: Path, named_by: str) -> None:
    environment(project.path / "env")
    track(project, "env")
    values = {
        "UV_PROJECT_ENVIRONMENT": {"UV_PROJECT_ENVIRONMENT": "env"},
        "VIRTUAL_ENV": {"VIRTUAL_ENV": str(project.path / "env")},
        "python": {"DG_PROJECT_PYTHON_EXECUTABLE": str(project.path / "env/bin/python")},
        "PATH": {"PATH": str(project.path / "env/bin")},
    }
    with pytest.raises(ConfigurationError, match="is committed to the repository"):
        find_interpreter(project.path, project.path, environ=values[named_by])


def in_a_workspace(wd: WorkDir) -> Path:
    wd.write("apps/a/pyproject.toml", SOURCE)
    return wd.path / "apps/a"


def test_an_environment_above(project: WorkDir, tmp_path: Path) -> None:
    a_file(project, tmp_path)
    with pytest.raises(ConfigurationError):
        find_interpreter(in_a_workspace(project), project.path, environ={})


@pytest.mark.parametrize("ignored", [True, False])
def test_what_git_does_not_track_is_taken(project: WorkDir, *, ignored: bool) -> None:
    environment(project.path / ".venv")
    project.write(".venv/.gitignore", "*\n" if ignored else "")
    track(project, ".venv/.gitignore")
    found = find_interpreter(project.path, project.path, environ={})
    assert found.path == project.path / ".venv/bin/python"


def test_outside_of_a_repository(tmp_path: Path) -> None:
    environment(tmp_path / ".venv")
    assert find_interpreter(tmp_path, tmp_path, environ={}).path == tmp_path / ".venv/bin/python"


COMMANDS = ("doctor", "status", "refresh", "build wheel --no-guard", "build oci --no-guard -o out")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_it(project: WorkDir, tmp_path: Path, command: str) -> None:
    a_file(project, tmp_path)
    done = project.run([BIN / "state-bundler", *command.split()], env={"VIRTUAL_ENV": ""})
    assert done.returncode in (1, 78), done
    assert b"is committed to the repository" in done.stdout + done.stderr
    assert not (tmp_path / "marker").exists()
