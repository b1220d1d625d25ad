from __future__ import annotations

from pathlib import Path

import pytest

from bundler.errors import ConfigurationError, UsageError
from bundler.project.projects import (
    DagsterModules,
    find,
    find_interpreter,
    projects_in,
    start_for_context,
    workspace_members,
)
from bundler.setup.init import chosen

PROJECT = '[project]\nname = "{name}"\n[tool.dg.project]\nroot_module = "{name}"\n'
SOURCE = '[[tool.state-bundler.source]]\nkey = "K"\ncommand = ["true"]\npath = "state"\n'


def _project(root: Path, name: str = "shop") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text(PROJECT.format(name=name))
    return root


def _environment(root: Path) -> Path:
    python = root / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return python


def test_a_dagster_project_by_pyproject(tmp_path: Path) -> None:
    (project,) = find([_project(tmp_path / "a")])
    assert project.name == "shop"
    assert project.dagster == DagsterModules("shop", "shop.defs")


def test_a_dagster_project_by_dg_toml(tmp_path: Path) -> None:
    (tmp_path / "dg.toml").write_text('[project]\nroot_module = "a"\ndefs_module = "a.b"\n')
    (project,) = find([tmp_path])
    assert project.dagster == DagsterModules("a", "a.b")
    assert project.name == tmp_path.name


def test_a_program_without_dagster(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(SOURCE)
    (project,) = find([tmp_path])
    assert project.dagster is None
    assert len(project.config.sources) == 1


def test_a_directory_inside_a_project_finds_it(tmp_path: Path) -> None:
    root = _project(tmp_path / "a b")
    (root / "src" / "deep").mkdir(parents=True)
    assert find([], start=root / "src" / "deep")[0].root == root


@pytest.mark.parametrize(
    "text", ["", "[tool.dg]\nworkspace = 1\n", "[tool]\ndg = 1\n", "[tool.black]\n"]
)
def test_what_is_not_a_project_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigurationError, match="not a Dagster project"):
        find([tmp_path])


@pytest.mark.parametrize("kind", ["dg.toml", "pyproject.toml", "uv"])
def test_a_workspace_names_its_projects(tmp_path: Path, kind: str) -> None:
    roots = [_project(tmp_path / "projects" / name, name) for name in ("a", "b")]
    (tmp_path / "projects" / "no-project").mkdir()
    listed = "".join(f'[[{{}}workspace.projects]]\npath = "projects/{name}"\n' for name in "ab")
    if kind == "uv":
        text = '[tool.uv.workspace]\nmembers = ["projects/*"]\n'
        (tmp_path / "pyproject.toml").write_text(text)
    else:
        prefix = "" if kind == "dg.toml" else "tool.dg."
        (tmp_path / kind).write_text(listed.replace("{}", prefix))
    assert list(workspace_members(tmp_path)) == roots
    with pytest.raises(UsageError, match="is a workspace of 2 projects: projects/a, projects/b"):
        find([], start=tmp_path)
    found = find([], start=tmp_path, everything=True)
    assert [project.root for project in found] == roots
    assert {project.workspace for project in found} == {tmp_path}


@pytest.mark.parametrize("members", ["['libs/*']", "['.', 'libs/*']"])
def test_the_root_of_a_workspace_may_be_a_project_itself(tmp_path: Path, members: str) -> None:
    workspace = f"[tool.uv.workspace]\nmembers = {members}\n"
    for root in (tmp_path, tmp_path / "libs/a"):
        root.mkdir(parents=True, exist_ok=True)
        text = workspace if root == tmp_path else ""
        (root / "pyproject.toml").write_text(SOURCE + text)
    both = [tmp_path, tmp_path / "libs/a"]
    assert [found.root for found in find([], start=tmp_path, everything=True)] == both
    assert projects_in(tmp_path) == both
    assert [found.root for found in chosen(tmp_path)] == both
    assert [found.root for found in find([], start=tmp_path)] == [tmp_path]


@pytest.mark.parametrize("kind", ["dg.toml", "pyproject.toml"])
@pytest.mark.parametrize(
    ("named", "why"),
    [
        (
            "[[{}workspace.projects]]\npath = 'a'\n[[{}workspace.projects]]\npath = 'b'",
            "b, a project .* does not exist",
        ),
        ("[[{}workspace.projects]]\npath = 'library'", "library.*is not a project"),
        ("[[{}workspace.projects]]\npath = 5", "list of tables"),
        ("[[{}workspace.projects]]", "list of tables"),
        ("[{}workspace]\nprojects = 3", "list of tables"),
        ("[{}workspace]\nprojects = ['a']", "list of tables"),
        ("[{}workspace]\nprojects = {path = 'a'}", "list of tables"),
    ],
)
def test_no_project_of_a_workspace_is_left_out(
    tmp_path: Path, kind: str, named: str, why: str
) -> None:
    root = _project(tmp_path / "a", "a")
    (tmp_path / "library").mkdir()
    (tmp_path / kind).write_text(named.replace("{}", "" if kind == "dg.toml" else "tool.dg."))
    for choose in (
        lambda: find([], start=tmp_path, everything=True),
        lambda: find([], start=tmp_path),
        lambda: find([tmp_path]),
        lambda: projects_in(tmp_path),
        lambda: chosen(tmp_path),
    ):
        with pytest.raises(ConfigurationError, match=why):
            choose()
    if "not exist" in why:  # a clone may have only a part of the repository
        assert find([root])[0].workspace == tmp_path


@pytest.mark.parametrize(
    ("paths", "project"),
    [
        (("projects/a", "../..", "Dockerfile"), "projects/a"),
        (("projects/a/src", "../../..", "../Dockerfile"), "projects/a"),
        (("projects/a", "../..", "../../docker/Dockerfile"), "projects/a"),
        (("projects/a", "../..", "../b/Dockerfile"), "projects/b"),
        ((".", ".", "projects/a/Dockerfile"), "projects/a"),
        ((".", "projects", "projects/b/docker/Dockerfile"), "projects/b"),
        ((".", "projects/a", None), "projects/a"),
        ((".", "projects/a", "projects/b/Dockerfile"), "projects/a"),
        (("projects/b", "../a", None), "projects/a"),
        (("projects/a", ".", "../../docker/Dockerfile"), "projects/a"),
        (("projects/a", "docker", None), "projects/a"),
        (("projects/a", "../../docker", None), "projects/a"),
        ((".", ".", None), None),
        ((".", ".", "docker/Dockerfile"), None),
    ],
)
def test_the_project_of_an_image_whose_context_may_be_above_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    paths: tuple[str, str, str | None],
    project: str | None,
) -> None:
    here, context, dockerfile = paths
    for name in ("a", "b"):
        _project(tmp_path / "projects" / name, name)
    (tmp_path / "projects/a/docker").mkdir()
    (tmp_path / "projects/a/src").mkdir(exist_ok=True)
    (tmp_path / "docker").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["projects/*"]\n')
    monkeypatch.chdir(tmp_path / here)
    start = start_for_context(Path(context), None if dockerfile is None else Path(dockerfile))
    if project is None:
        with pytest.raises(UsageError, match="is a workspace of 2 projects"):
            find([], start=start)
    else:
        assert [found.root for found in find([], start=start)] == [tmp_path / project]


def test_the_interpreter_is_searched_in_order(tmp_path: Path) -> None:
    root = _project(tmp_path / "w" / "p")
    named, variable = _environment(tmp_path / "n"), _environment(tmp_path / "v")
    uv, own = _environment(tmp_path / "w" / "uv"), _environment(root / ".venv")
    shared, active = _environment(tmp_path / "w" / ".venv"), _environment(tmp_path / "active")
    environ = {
        "DG_PROJECT_PYTHON_EXECUTABLE": str(variable),
        "UV_PROJECT_ENVIRONMENT": "uv",
        "VIRTUAL_ENV": str(active.parent.parent),
    }

    def search(python: Path | None = None) -> Path:
        return find_interpreter(root, tmp_path / "w", python=python, environ=environ).path

    assert search(named) == named
    assert search() == variable
    del environ["DG_PROJECT_PYTHON_EXECUTABLE"]
    assert search() == uv
    del environ["UV_PROJECT_ENVIRONMENT"]
    assert search() == own
    own.unlink()
    assert search() == shared
    shared.unlink()
    assert search() == active
    del environ["VIRTUAL_ENV"]
    environ["PATH"] = str(active.parent)
    active.chmod(0o755)
    assert search() == active
    environ["PATH"] = ""
    with pytest.raises(ConfigurationError, match="No Python was found"):
        search()


def test_a_named_interpreter_may_be_one_on_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "python3.99"
    program.touch(mode=0o755)
    environ = {"PATH": str(program.parent)}
    found = find_interpreter(tmp_path, tmp_path, python=Path("python3.99"), environ=environ)
    assert found.path == program


def test_a_missing_interpreter_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the interpreter from --python, does not exist"):
        find_interpreter(tmp_path, tmp_path, python=tmp_path / "no", environ={})


def test_an_environment_above_the_workspace_is_not_taken(tmp_path: Path) -> None:
    _environment(tmp_path / ".venv")
    root = _project(tmp_path / "w")
    with pytest.raises(ConfigurationError, match="No Python was found"):
        find_interpreter(root, root, environ={"PATH": ""})
