"""Advice fits the tool that manages the project's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler.project.environment_tools import how_to_add, how_to_install

_POETRY = "[tool.poetry]\nname = 'shop'\n"


@pytest.mark.parametrize(
    ("files", "install", "add"),
    [
        ({"uv.lock": ""}, "uv sync", "uv add 'x>=1'"),
        ({"pyproject.toml": "[tool.uv]\npackage = true\n"}, "uv sync", "uv add 'x>=1'"),
        ({"pyproject.toml": _POETRY}, "poetry install", "poetry add 'x>=1'"),
        ({"poetry.lock": "", "pyproject.toml": ""}, "poetry install", "poetry add 'x>=1'"),
        ({"../poetry.lock": ""}, "poetry install", "poetry add 'x>=1'"),
        ({"pixi.toml": ""}, "pixi install", "pixi add --pypi 'x>=1'"),
        ({"pyproject.toml": "[tool.pixi.workspace]\n"}, "pixi install", "pixi add --pypi 'x>=1'"),
        ({"pdm.lock": ""}, "pdm install", "pdm add 'x>=1'"),
        ({"Pipfile": ""}, "pipenv install", "pipenv install 'x>=1'"),
        ({"../pants.toml": ""}, "pants export", "pip install 'x>=1'"),
        ({"environment.yml": ""}, "conda env create", "pip install 'x>=1'"),
        ({"requirements.txt": ""}, "pip install -r requirements.txt", "pip install 'x>=1'"),
        ({"pyproject.toml": "[project]\nname = 'x'\n"}, "pip install -e .", "pip install 'x>=1'"),
        # The project's own files go before those of a folder above.
        ({"pixi.toml": "", "../uv.lock": ""}, "pixi install", "pixi add --pypi 'x>=1'"),
    ],
)
def test_the_tool_is_the_one_that_the_files_name(
    files: dict[str, str], install: str, add: str, tmp_path: Path
) -> None:
    root = _project(tmp_path, files)
    assert install in how_to_install(root)
    assert "uv sync" in install or "uv sync" not in how_to_install(root)
    assert how_to_add(root, "x>=1") == add


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "../Dockerfile", "../build.dockerfile"])
def test_where_only_an_image_has_the_environment_it_is_named(
    dockerfile: str, tmp_path: Path
) -> None:
    root = _project(tmp_path, {dockerfile: ""})
    assert "--in IMAGE" in how_to_install(root, "python3 on PATH")
    assert "install" not in how_to_install(root, "python3 on PATH")
    assert "--in IMAGE" not in how_to_install(root, f"{root}/.venv")
    (root / "poetry.lock").touch()
    assert "poetry install" in how_to_install(root, "python on PATH")


def test_what_is_outside_of_the_repository_says_nothing(tmp_path: Path) -> None:
    root = _project(tmp_path, {"../../uv.lock": ""})
    assert "pip install -e ." in how_to_install(root)


def _project(folder: Path, files: dict[str, str]) -> Path:
    root = folder / "repository" / "shop"
    root.mkdir(parents=True)
    (root.parent / ".git").mkdir()
    for name, text in files.items():
        (root / name).write_text(text)
    return root


def test_a_folder_that_does_not_exist_has_no_dockerfile(tmp_path: Path) -> None:
    assert "pip install" in how_to_install(tmp_path / "nowhere", "python on PATH")
