"""The projects of a workspace as a CI matrix, one job each.

Found by files alone, so that the job that computes it needs no environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from bundler.project.projects import project_name, projects_below, projects_in
from bundler.project.survey import Survey, survey
from bundler.setup.init.images import DeclaredBuild, build_of, builds_in


class MatrixEntry(TypedDict):
    """One job. name: the distribution's. path: relative to the root, POSIX. dockerfile, context:
    of the project's image, relative to the project; empty if there is none."""

    name: str
    path: str
    dockerfile: str
    context: str


def unnamed(root: Path, projects: Sequence[Path]) -> tuple[Path, ...]:
    """The projects below a workspace's root that it does not name."""
    return tuple(path for path in projects_below(root.resolve()) if path not in projects)


def matrix(root: Path) -> list[MatrixEntry]:
    return list(_entries(root.resolve()))


def _entries(root: Path) -> Iterator[MatrixEntry]:
    builds: dict[Path, list[DeclaredBuild]] = {}
    for project in projects_in(root):
        found = survey(project)
        if found.outer not in builds:
            builds[found.outer] = builds_in(found.outer)
        build = build_of(found, builds[found.outer])
        path = project.relative_to(root) if project.is_relative_to(root) else project
        yield MatrixEntry(
            name=project_name(project),
            path=path.as_posix(),
            dockerfile="" if build is None else _from(found, build.dockerfile),
            context="" if build is None else _from(found, build.context),
        )


def _from(found: Survey, path: str) -> str:
    """A path in the repository, relative to the project's folder."""
    return Path(os.path.relpath(found.outer / path, found.root)).as_posix()
