"""In the root of a repository that is not a project, every command says what to do there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from bundler.cli.commands import cli
from bundler.errors import ConfigurationError, UsageError
from bundler.project.classic_dbt import classic_dbt
from bundler.project.no_project import no_project
from bundler.project.projects import find, projects_below, workspace_members
from bundler.project.stateful import with_state
from bundler.setup.doctor.workspace import roots_of
from tests.support.shapes import ALL, SHAPES

# Of each shape: the projects that there are, or else what a command says.
WAYS = {
    "nested": ["pipeline/scheduler"],
    "build_arg": ["orders", "prices", "returns", "staff", "stock"],
    "dagster_cloud": ["billing", "support"],
    "pants": ["src/python/feeds"],
    "classic_dbt": "`state-bundler init` writes the source that runs dbt parse",
    "tool_dagster": "[tool.dagster] in pyproject.toml names a Dagster project without dg",
    "workspace_yaml": "workspace.yaml names a Dagster project without dg",
    "snapshot": "Write a source: [[tool.state-bundler.source]]",
}


@pytest.mark.parametrize("name", WAYS)
def test_the_way_out_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way = WAYS[name]
    root = tmp_path / name
    shutil.copytree(SHAPES / name, root)
    python = tmp_path / "python"
    python.touch()
    monkeypatch.chdir(root)
    if isinstance(way, list):
        expected = f"below: {', '.join(way)}. Run it there, or select one with --project {way[0]}."
        found = find([], start=root, everything=True, python=python)
        assert [each.root.relative_to(root).as_posix() for each in found] == way
    else:
        expected = way
        with pytest.raises(ConfigurationError) as raised:
            find([], start=root, everything=True, python=python)
        assert expected in raised.value.hint
    with pytest.raises(ConfigurationError) as raised:
        find([], start=root, python=python)
    assert expected in raised.value.hint
    assert ("without dg" in raised.value.what) == ("Dagster project" in way or "dbt parse" in way)

    done = CliRunner().invoke(cli, ["doctor", "--matrix"], standalone_mode=False)
    if isinstance(way, list):
        assert [entry["path"] for entry in json.loads(done.output)["include"]] == way
    else:
        assert isinstance(done.exception, ConfigurationError)
        assert expected in done.exception.hint


@pytest.mark.parametrize(
    ("file", "text", "is_dagster"),
    [
        ("code/a/pyproject.toml", "[tool.dagster]\nmodule_name = 'a'\n", True),
        ("code/a/pyproject.toml", "[project]\ndependencies = ['dagster>=1.9']\n", True),
        ("code/a/pyproject.toml", "[tool.poetry.dependencies]\ndagster = '*'\n", True),
        ("code/a/setup.py", "setup(install_requires=['dagster', 'x'])\n", True),
        ("code/requirements.txt", "x\ndagster[aws]==1.9\n", True),
        ("code/workspace.yaml", "load_from:\n  - python_file: a.py\n", True),
        ("code/workspace.yaml", "projects: []\n", False),
        ("code/a/pyproject.toml", "dependencies = ['dagster-pipes', 'not-dagster']\n", False),
    ],
)
def test_a_dagster_project_without_dg_is_named(
    file: str,
    text: str,
    is_dagster: bool,
    tmp_path: Path,  # a parameter
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    error = no_project(tmp_path, ())
    assert ("has a Dagster project without dg" in error.what) == is_dagster
    assert (f"{file} names a Dagster project" in error.hint) == is_dagster


def test_the_advice_about_a_vendor_ends_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "setup.py").write_text("setup(install_requires=['dagster'])\n")
    (tmp_path / "code.py").write_text("specs = load_fivetran_asset_specs(workspace)\n")
    hint = no_project(tmp_path, ()).hint
    assert "belong to dg projects. If the project has some, add [tool.dg.project]" in hint
    assert hint.endswith(
        "Replace the call with the component dagster_fivetran.FivetranAccountComponent, which "
        "keeps the answer as state."
    )


def test_an_example_that_is_there_is_not_offered(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.state-bundler]\n")
    assert "init" not in no_project(tmp_path, ()).hint


def test_init_writes_nothing_where_there_is_no_project(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    done = CliRunner().invoke(cli, ["init", "--yes", "--project", str(tmp_path)])
    assert isinstance(done.exception, ConfigurationError)
    assert [path.name for path in tmp_path.iterdir()] == [".git"]


@pytest.mark.parametrize("below", ["src", "src/shop/defs"])
def test_below_a_project_doctor_examines_it_and_init_names_it(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    (tmp_path / below).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / below)
    assert roots_of(Path()) == [tmp_path]
    assert roots_of(tmp_path / below) == [tmp_path / below]
    done = CliRunner().invoke(cli, ["init", "--yes"])
    assert isinstance(done.exception, ConfigurationError)
    assert done.exception.hint == f"Its project is {os.path.relpath(tmp_path)}: run it there."


def test_the_files_that_a_pattern_matches_are_no_members(tmp_path: Path) -> None:
    (tmp_path / "packages/shop").mkdir(parents=True)
    (tmp_path / "packages/README.md").touch()
    (tmp_path / "packages/shop/dg.toml").write_text("[project]\n")
    workspace = "[tool.uv.workspace]\nmembers = ['packages/*', '/nowhere/*', '', 5]\n"
    for more, members in (("", ["shop"]), ("exclude = ['packages/sh*']\n", [])):
        (tmp_path / "pyproject.toml").write_text(workspace + more)
        assert [path.name for path in workspace_members(tmp_path)] == members


def test_other_peoples_code_is_not_searched(tmp_path: Path) -> None:
    for folder in (".venv/a", "node_modules/a", "env/lib/a", "dist/a", ".git/a", "{{ name }}/a"):
        path = tmp_path / folder
        path.mkdir(parents=True)
        (path / "dg.toml").write_text("[project]\n")
    (tmp_path / "env/pyvenv.cfg").touch()
    assert projects_below(tmp_path) == ()


@pytest.mark.parametrize(
    ("file", "text", "names_it"),
    [
        ("pyproject.toml", "[project]\nname = {{ cookiecutter.x }}\n", False),
        ("pyproject.toml", "[tool.dg.project]\nroot_module = {{ cookiecutter.x }}\n", False),
        ("pyproject.toml", "{% if x %}\n[tool.dg.project]\n{% endif %}\n", False),
        ("pyproject.toml", "name = \n", False),
        ("pyproject.toml", "\udcff", False),
        ("dg.toml", "[[[\n", False),
        ("pyproject.toml", "[tool.dg.project]\nroot_module = shop\n", True),
        ("pyproject.toml", "[[tool.state-bundler.source]]\nkey = \n", True),
    ],
)
def test_what_is_not_toml_below_is_not_a_project_unless_it_names_our_table(
    file: str, text: str, names_it: bool, tmp_path: Path
) -> None:
    for folder, content in (("templates/{x}", text), ("shop", "[tool.dg.project]\n")):
        (tmp_path / folder).mkdir(parents=True)
        path = tmp_path / folder / (file if content == text else "pyproject.toml")
        path.write_bytes(content.encode(errors="surrogateescape"))
    if names_it:
        with pytest.raises(ConfigurationError, match=r"templates/\{x\}/pyproject.toml"):
            projects_below(tmp_path)
    else:
        assert projects_below(tmp_path) == (tmp_path / "shop",)


@pytest.mark.parametrize(
    ("here", "selected", "hint"),
    [
        ("ws", ([], False), "select one with --project a, or all with --all."),
        ("ws", ([], None), "or select one with --project a."),
        (".", (["ws"], False), "or select one with --project ws/a."),
        (".", (["ws"], True), "or select one with --project ws/a."),
        ("ws/b", ([".."], False), "or select one with --project ../a."),
    ],
)
def test_a_selection_is_named_as_it_works_here(
    here: str,
    selected: tuple[list[str], bool | None],
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a", "b"):
        (tmp_path / "ws" / name).mkdir(parents=True)
    (tmp_path / "ws/a/dg.toml").write_text("[project]\n")
    monkeypatch.chdir(tmp_path / here)
    named, everything = selected
    with pytest.raises(ConfigurationError) as raised:
        find([Path(name) for name in named], everything=everything)
    assert raised.value.hint.endswith(hint)


def test_a_workspace_needs_a_choice(tmp_path: Path) -> None:
    shutil.copytree(SHAPES / "workspace_uv", tmp_path / "w")
    for everything, ways in ((None, "--project DIR."), (False, "or all with --all.")):
        with pytest.raises(UsageError, match="is a workspace of 2 projects") as raised:
            find([], start=tmp_path / "w", everything=everything)
        assert raised.value.hint.endswith(ways)


def test_the_source_of_a_classic_dbt_project(tmp_path: Path) -> None:
    shutil.copytree(SHAPES / "classic_dbt", root := tmp_path / "r")
    (root / ".git").mkdir()
    for start in (root, root / "dagster_project"):
        found = classic_dbt(start)
        assert found is not None
        assert found.home == root / "dagster_project"
        assert found.state_path == "jaffle/dbt_state"
        assert found.command[3:7] == [
            "--project-dir",
            "../dbt_project",
            "--profiles-dir",
            "../dbt_project",
        ]
        assert found.manifest == "dbt_state/dbt_project/state/manifest.json"


def test_a_repository_that_is_a_package_is_not_where_the_state_belongs(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/dbt_project.yml").touch()
    (tmp_path / "shop/assets").mkdir(parents=True)
    for folder in (".", "shop", "shop/assets"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "shop/assets/dbt.py").write_text("@dbt_assets(manifest=path)\n")
    found = classic_dbt(tmp_path)
    assert found is not None
    assert found.state_path == "shop/dbt_state"


@pytest.mark.parametrize("name", ["workspace_dg", "build_arg"])
def test_of_all_projects_those_with_state_are_taken(name: str, tmp_path: Path) -> None:
    """The others may have no environment here."""
    shutil.copytree(SHAPES / name, root := tmp_path / name)
    (root / ".git").mkdir()
    (tmp_path / "python").touch()
    found = find([], start=root, everything=True, python=tmp_path / "python")
    taken = [each.root.relative_to(root).as_posix() for each in with_state(found)]
    assert taken == list(ALL[name].states)
    assert with_state([each for each in found if each.name == "plain"]) == tuple(
        each for each in found if each.name == "plain"
    )
