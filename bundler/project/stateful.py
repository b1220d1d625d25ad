"""Whether a project has state, by the text of its files: nothing of it is imported.

A component of a class that nobody here knows counts: a project that is configured in vain does no
harm, one that is passed over loses its state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bundler.project.classic_dbt import files, mentions, start_of
from bundler.project.projects import Project
from bundler.project.survey import Survey, survey, table

# Dagster's own libraries; of these only the named classes have state.
_DAGSTERS = re.compile(r"dagster(_\w+)?\.")
_STATEFUL = (
    r"\b(?:DbtProject|FivetranAccount|Airbyte\w*Workspace|Tableau\w*|Looker\w*|Sigma\w*|PowerBI\w*"
    r"|Omni\w*|Databricks\w*Workspace|Census\w*|Polytomic\w*)Component\b"
)
_CODE = re.compile(rf"\bStateBackedComponent\b|\bcomponent_instance\b|{_STATEFUL}")
_TYPE = re.compile(r"(?m)^\s*type:\s*[\"']?([A-Za-z_][\w.]*)")
_DEFINITIONS = ("defs.yaml", "defs.yml", "component.yaml", "component.yml")


def has_state(survey: Survey) -> bool:
    """Whether a project has a source, or a component that may have state."""
    if table(survey.pyproject, "tool", "state-bundler").get("source"):
        return True
    if survey.dagster is None:
        return False
    if any(path.suffix == ".py" and mentions(path, _CODE) for path in files(survey.root)):
        return True
    return any(_may_have_state(survey, name) for name in _types(survey.root))


def with_state(projects: Sequence[Project]) -> tuple[Project, ...]:
    """Those with state, of several; all of them if none seems to have any."""
    found = tuple(each for each in projects if has_state(survey(each.root)))
    return found or tuple(projects)


def _types(root: Path) -> Iterator[str]:
    for path in files(root):
        if path.name in _DEFINITIONS:
            yield from _TYPE.findall(start_of(path))


def _may_have_state(survey: Survey, name: str) -> bool:
    if _DAGSTERS.match(name):
        return re.search(_STATEFUL, name) is not None
    package = name.partition(".")[0]
    if survey.dagster is not None and package == survey.dagster.root.partition(".")[0]:
        return False  # its code was read
    own = [path for path in files(survey.outer) if package in path.parts and path.suffix == ".py"]
    return not own or any(mentions(path, _CODE) for path in own)
