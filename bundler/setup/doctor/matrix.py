"""The projects of a workspace as a CI matrix: each of them is its own job.

Found by files alone, so that the job that computes it needs no environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from bundler.errors import ConfigurationError
from bundler.project.projects import project_name, workspace_members
from bundler.project.survey import survey


class MatrixEntry(TypedDict):
    """One job. name: the distribution's. path: relative to the root, POSIX. dockerfile: of the
    project, relative to it; empty if there is none."""

    name: str
    path: str
    dockerfile: str


def projects_in(root: Path) -> Sequence[Path]:
    """The workspace's projects, or the one that is here.

    Raises `ConfigurationError` if there is neither.
    """
    root = root.resolve()
    found = survey(root)
    if found.dagster is not None or "source" in found.pyproject.get("tool", {}).get(
        "state-bundler", {}
    ):
        return [root]
    members = list(workspace_members(root))
    if not members:
        raise ConfigurationError(
            f"{root} is neither a project nor a workspace of projects.",
            hint="Run this in a directory with [tool.dg.workspace] or [tool.uv.workspace].",
        )
    return members


def matrix(root: Path) -> list[MatrixEntry]:
    """An entry for each project, in the order of the workspace."""
    return list(_entries(root.resolve()))


def _entries(root: Path) -> Iterator[MatrixEntry]:
    for project in projects_in(root):
        dockerfiles = survey(project).dockerfiles
        path = project.relative_to(root) if project.is_relative_to(root) else project
        yield MatrixEntry(
            name=project_name(project),
            path=path.as_posix(),
            dockerfile=str(dockerfiles[0]) if dockerfiles else "",
        )
