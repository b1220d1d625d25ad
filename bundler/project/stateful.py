"""Whether a project has state, judging by the text of its files, without importing anything.

The answer is no only if that is certain, whatever its components are: configuring a project in vain
does no harm, skipping one loses its state.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bundler.project.classic_dbt import MOST_FOLDERS, files
from bundler.project.component_classes import ComponentClasses
from bundler.project.config import table
from bundler.project.layout import import_roots
from bundler.project.projects import DagsterModules, Project
from bundler.project.survey import Survey, survey
from bundler.system.git_directory import read_regular
from bundler.system.walking import walk

# What declares a component in Python, without a YAML file.
_CODE = re.compile(
    r"\b(?:StateBackedComponent|component_instance|build_defs_for_component|(?:\w*DbtProject|DbtCloud"
    r"|FivetranAccount|Airbyte\w*Workspace|Tableau\w*|Looker\w*|Sigma\w*|PowerBI\w*|Omni\w*|Census\w*"
    r"|Databricks\w*Workspace|Polytomic\w*|AirflowInstance|SparkDeclarativePipeline)Component)\b"
)
_DEFINITIONS = ("defs.yaml", "defs.yml", "component.yaml", "component.yml")
_MOST_BYTES = 2_000_000


def has_state(survey: Survey) -> bool:
    """Whether a project has a source, or a component that may have state."""
    if table(survey.pyproject, "tool", "state-bundler").get("source"):
        return True
    if survey.dagster is None:
        return False
    try:
        return _may_have_state(survey, survey.dagster)
    except (OSError, ValueError, SyntaxError, RecursionError):  # something cannot be read
        return True


def with_state(projects: Sequence[Project]) -> tuple[Project, ...]:
    """The projects with state; all of them if none seems to have any."""
    found = tuple(each for each in projects if has_state(survey(each.root)))
    return found or tuple(projects)


def _may_have_state(survey: Survey, dagster: DagsterModules) -> bool:
    loaded = _loaded(survey.root, dagster.root, dagster.defs)
    own = list(dict.fromkeys([*loaded, *files(survey.root, must_be_all=True)]))
    if any(path.suffix == ".py" and _CODE.search(_text(path)) for path in own):
        return True
    classes = ComponentClasses(own, survey.outer, _text)
    declared = (path for path in own if path.name in _DEFINITIONS)
    return not all(classes.is_stateless(name) for path in declared for name in _types(path))


def _loaded(home: Path, root: str, defs: str) -> Iterator[Path]:
    """Every file that Dagster may load: in the root module and in the one of the definitions.

    Raises `FileNotFoundError` for a module that is elsewhere.
    """
    for module in [root] if defs.startswith(f"{root}.") else [root, defs]:
        parts = module.split(".")
        places = [above.joinpath(*parts) for above in import_roots(home)]
        found = [path for path in places if path.is_dir()]
        if not found:
            raise FileNotFoundError(module)
        for place in found:
            yield from _below(place)


def _below(module: Path) -> Iterator[Path]:
    """Like Dagster, regardless of the folders' names."""
    for count, (folder, folders, names) in enumerate(walk(module)):
        folders[:] = sorted(n for n in folders if n != "__pycache__" and not n.startswith("."))
        if count == MOST_FOLDERS or any(os.path.islink(f"{folder}/{name}") for name in folders):
            raise OSError(f"{folder} was not searched")
        yield from (Path(folder, name) for name in sorted(names))


def _text(path: Path) -> str:
    """Raises `OSError` for anything but a regular file, and for one that is too large."""
    text = read_regular(os.fsencode(path), _MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise OSError(f"{path} is too large")
    return text.decode(errors="replace")


def _types(path: Path) -> Iterator[str]:
    """The types that a file declares. Raises `ValueError` for one that cannot be parsed."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        documents = list(YAML(typ="safe", pure=True).load_all(_text(path)))
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML") from error
    if not all(isinstance(document, dict | None) for document in documents):
        raise ValueError(f"{path} declares no component")
    yield from (str(each["type"]) for each in documents if each and "type" in each)
