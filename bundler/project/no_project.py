"""Advice for a folder that is not a project: the projects below it, or how to write a source."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from bundler.errors import ConfigurationError
from bundler.project.classic_dbt import classic_dbt, files, mentions
from bundler.project.classic_vendors import advice_on_vendors
from bundler.project.config import pyproject_of, read_toml
from bundler.system.wording import counted, listed

_SOURCE = "[[tool.state-bundler.source]] with a key, a command that writes {state_path}, and a path"
_MOST_NAMES = 6
# What in a file says that Dagster runs its code. A workspace.yaml is also a file of other tools.
_REQUIRED = re.compile(r"(?m)^\[tool\.dagster\]|(?:^|[\s\"'\[])dagster(?:[\s\"',;=<>~!\[]|$)")
_LOCATIONS = re.compile(r"(?m)^load_from:")
_SIGNS = {
    **dict.fromkeys(("workspace.yaml", "workspace.yml"), _LOCATIONS),
    **dict.fromkeys(("pyproject.toml", "setup.py", "setup.cfg", "Pipfile"), _REQUIRED),
    **dict.fromkeys(("requirements.txt", "environment.yml", "pixi.toml"), _REQUIRED),
}


def no_project(root: Path, below: Sequence[Path], *, has_all: bool = False) -> ConfigurationError:
    """The error for a folder that is not a project.

    below: the projects in it. has_all: whether ``--all`` would select them.
    """
    what = what_is_missing(root, below)
    return ConfigurationError(what, hint=way_out(root, below, has_all=has_all))


def what_is_missing(root: Path, below: Sequence[Path] = ()) -> str:
    """The error message for a folder that is not a project. below: the projects in it."""
    if not below and dagster_without_dg(root):
        return f"{root} has a Dagster project without dg, and it configures no sources."
    return f"{root} is not a Dagster project, and it configures no sources."


def way_out(root: Path, below: Sequence[Path], *, has_all: bool = False) -> str:
    """The next step in a folder that is not a project."""
    if below:
        first = shlex.quote(os.path.relpath(below[0]))
        ways = ["Run it there", f"select one with --project {first}"]
        ways += ["all with --all"] if has_all else []
        found = counted(len(below), "project is", "projects are")
        return f"{found} below: {names(root, below)}. {', '.join(ways[:-1])}, or {ways[-1]}."
    if dbt := classic_dbt(root):
        code = dbt.code.relative_to(root)
        return (
            f"{code} loads dbt's models from a manifest. `state-bundler init` writes the source "
            "that runs dbt parse before each build."
        )
    if file := dagster_without_dg(root):
        about_vendors = f" {said}" if (said := advice_on_vendors(root)) else ""
        return (
            f"{file} names a Dagster project without dg, and state-backed components belong to dg "
            "projects. If the project has some, add [tool.dg.project] with root_module to its "
            f"pyproject.toml. For other state write a source: {_SOURCE}.{_example(root)}"
            f"{about_vendors}"
        )
    if not pyproject_of(root).is_file():
        return (
            "Run this in a project, or select one with --project. A program without Dagster needs "
            f"a source in its pyproject.toml: {_SOURCE}."
        )
    return f"Write a source: {_SOURCE}.{_example(root)}"


def _example(root: Path) -> str:
    """`init` changes a pyproject.toml but does not create one."""
    if not pyproject_of(root).is_file():
        return " It belongs in pyproject.toml, which does not exist yet."
    if "state-bundler" in read_toml(pyproject_of(root)).get("tool", {}):
        return " It belongs in [tool.state-bundler] in pyproject.toml."
    return " `state-bundler init` adds an example to pyproject.toml."


def names(root: Path, projects: Sequence[Path]) -> str:
    """The projects' folders, at most the first few."""
    return listed([path.relative_to(root).as_posix() for path in projects], _MOST_NAMES)


def dagster_without_dg(root: Path) -> str | None:
    """The file that names one, the nearest of those in a folder and below."""
    if "dagster" in read_toml(pyproject_of(root)).get("tool", {}):
        return "[tool.dagster] in pyproject.toml"
    found = [
        path.relative_to(root)
        for path in files(root)
        if (sign := _SIGNS.get(path.name)) and mentions(path, sign)
    ]
    order = list(_SIGNS)
    found.sort(key=lambda path: (len(path.parts), order.index(path.name), path))
    return found[0].as_posix() if found else None
