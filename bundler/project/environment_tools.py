"""Detects the tool that manages a project's environment, for advice that fits."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from bundler.errors import BundlerError
from bundler.project.config import pyproject_of, read_toml, table
from bundler.project.layout import dockerfiles_in, repository_of


class EnvironmentTool(msgspec.Struct, frozen=True):
    """install: the command that creates the environment. add: the one that adds a package, with
    ``{}`` for its name. run: the prefix that runs a command in the environment without
    activating it."""

    install: str
    add: str
    run: str = ""


_PIP = "pip install {}"
_UV = EnvironmentTool("uv sync", "uv add {}", "uv run")
_POETRY = EnvironmentTool("poetry install", "poetry add {}", "poetry run")
_PIXI = EnvironmentTool("pixi install", "pixi add --pypi {}", "pixi run")
_PDM = EnvironmentTool("pdm install", "pdm add {}", "pdm run")
_PIPENV = EnvironmentTool("pipenv install", "pipenv install {}", "pipenv run")
_PANTS = EnvironmentTool("pants export --resolve=python-default", _PIP)
_CONDA = EnvironmentTool("conda env create -f environment.yml", _PIP)
_REQUIREMENTS = EnvironmentTool("pip install -r requirements.txt", _PIP)

# Files that a tool writes precede files that somebody writes for it.
_FILES = {
    "uv.lock": _UV,
    "poetry.lock": _POETRY,
    "pixi.lock": _PIXI,
    "pixi.toml": _PIXI,
    "pdm.lock": _PDM,
    "Pipfile": _PIPENV,
    "pants.toml": _PANTS,
}
_TABLES = {"uv": _UV, "poetry": _POETRY, "pixi": _PIXI, "pdm": _PDM}
_LAST_FILES = {
    "environment.yml": _CONDA,
    "requirements.txt": _REQUIREMENTS,
}


def tool_of(root: Path) -> EnvironmentTool | None:
    """The tool of the project in `root`: its own, else that of a parent folder in the repository.

    None if no file says.
    """
    folders = _up_to_repository(root)
    for folder in folders:
        for name, tool in _FILES.items():
            if (folder / name).is_file():
                return tool
        pyproject = _pyproject(folder)
        for name, tool in _TABLES.items():
            if name in table(pyproject, "tool"):
                return tool
        if "uv_build" in str(pyproject.get("build-system", "")):
            return _UV
    named = (tool for name, tool in _LAST_FILES.items() if (root / name).is_file())
    return next(named, None)


def how_to_install(root: Path, found_by: str = "") -> str:
    """The advice for an interpreter that lacks the project's packages.

    found_by: see `bundler.project.projects.Interpreter`. If it is only the one on PATH, the
    project's environment may exist only in an image.
    """
    tool = tool_of(root)
    ways = []
    if tool is not None:
        ways.append(
            f"install the project ({tool.install})"
            + (f" and run this with {tool.run}" if tool.run else "")
        )
    if found_by.endswith(" on PATH") and _is_built_as_image(root):
        ways.append("name the image that has its environment, as in `build docker --in IMAGE`")
    ways = ways or ["install the project (pip install -e .)"]
    text = ", or ".join([*ways, "pass its interpreter with --python"])
    return f"{text[0].upper()}{text[1:]}."


def how_to_add(root: Path, requirement: str) -> str:
    tool = tool_of(root)
    return (tool.add if tool else _PIP).format(f"'{requirement}'")


def _is_built_as_image(root: Path) -> bool:
    folders = (root, _up_to_repository(root)[-1])
    return any(True for folder in folders for _ in dockerfiles_in(folder))


def _up_to_repository(root: Path) -> list[Path]:
    """The folder and its parents in the repository; outside of one, only itself."""
    root = root.resolve()
    top = repository_of(root) or root
    return [folder for folder in (root, *root.parents) if folder.is_relative_to(top)]


def _pyproject(folder: Path) -> dict[str, Any]:
    try:
        return read_toml(pyproject_of(folder))
    except BundlerError:
        return {}


def find_uv() -> str | None:
    """uv, next to our own interpreter or on PATH; None if it is missing."""
    nearby = Path(sys.executable).with_name("uv")
    return str(nearby) if nearby.exists() else shutil.which("uv")
