"""Repositories as people have them: checkouts of ``tests/projects/shapes``.

A shape is a small repository of one layout. Each has the files that name its Dagster projects, its
images and its tools, and where it has state one component, which reads it from a variable.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.environments import ROOT
from tests.support.sample import make_environment
from tests.support.workdir import WorkDir

SHAPES = ROOT / "tests" / "projects" / "shapes"
# What the components of the shapes take their state from.
ENVIRONMENT = {"WAREHOUSE_TABLES": "customers orders", "DAGSTER_DISABLE_TELEMETRY": "true"}


@dataclass(frozen=True)
class Shape:
    """environments: the folders with a ``.venv``, and what its code is imported from.

    states: the projects with a component. branch: the default one. copies: a project to have nine
    of.
    """

    environments: Mapping[str, tuple[str, ...]]
    states: tuple[str, ...] = ()
    branch: str = "main"
    copies: str = ""


_PLAIN = "locations/plain"
# The condition of the jobs that ship.
ON_DEFAULT_BRANCH = "github.ref == format('refs/heads/{0}', github.event.repository.default_branch)"
ALL = {
    "workspace_uv": Shape({".": ("locations/orders/src",)}, ("locations/orders",), copies=_PLAIN),
    "workspace_dg": Shape(
        {"projects/orders": ("projects/orders/src",)},
        ("projects/orders",),
        copies=_PLAIN.replace("locations", "projects"),
    ),
    "nested": Shape(
        {"pipeline/scheduler": ("pipeline/scheduler/src",)},
        ("pipeline/scheduler",),
        branch="trunk",
    ),
    "tool_dagster": Shape({".": (".",)}),
    "workspace_yaml": Shape({".": (".",)}),
    "classic_dbt": Shape({"dagster_project": ("dagster_project",)}),
    "build_arg": Shape({"orders": ("orders/src",), "stock": ("stock/src",)}, ("orders", "stock")),
    "compose": Shape({".": ("src",)}, (".",)),
    "dagster_cloud": Shape({"billing": ("billing/src",)}, ("billing",)),
    "pants": Shape({"src/python/feeds": ("src/python/feeds",)}, ("src/python/feeds",)),
    # These three only run in an image: there is no environment here.
    "poetry": Shape({}, (".",)),
    "pixi": Shape({}, (".",)),
    "requirements": Shape({}, (".",)),
    # Its environment is made by the workflow.
    "poetry_wheel": Shape({}, (".",)),
    "snapshot": Shape({}),
    "no_pyproject": Shape({".": (".",)}, (".",), branch="master"),
}


def checkout(name: str, path: Path) -> WorkDir:
    """The shape as a clone with one commit, whose default branch is the one that ``origin`` has."""
    shape = ALL[name]
    origin = WorkDir.make(path.parent / f"{path.name}-origin")
    origin(["git", "symbolic-ref", "HEAD", f"refs/heads/{shape.branch}"])
    shutil.copytree(SHAPES / name, origin.path, dirs_exist_ok=True)
    if shape.copies:
        _copy(origin.path / shape.copies)
    origin.commit("The shape")
    origin(["git", "clone", "--quiet", str(origin.path), str(path)])
    wd = WorkDir(path, {**origin.env, **ENVIRONMENT})
    wd.write(".git/info/exclude", ".venv\n")
    for folder, sources in shape.environments.items():
        make_environment(path / folder, *(path / source for source in sources))
    return wd


def _copy(project: Path) -> None:
    """Eight more projects like ``plain``, next to it."""
    for number in range(2, 10):
        name = f"{project.name}_{number}"
        target = project.with_name(name)
        shutil.copytree(project, target)
        (target / "src" / project.name).rename(target / "src" / name)
        pyproject = target / "pyproject.toml"
        pyproject.write_text(pyproject.read_text().replace(project.name, name))
        if (dg := project.parent.parent / "dg.toml").exists():
            entry = f'\n[[workspace.projects]]\npath = "{project.parent.name}/{name}"\n'
            dg.write_text(dg.read_text() + entry)
