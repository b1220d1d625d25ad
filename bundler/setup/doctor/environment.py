"""The configuration, and the interpreter that the project runs in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bundler.errors import ToolFailed
from bundler.project.config import load
from bundler.project.environment_tools import how_to_add, how_to_install
from bundler.project.no_project import way_out, what_is_missing
from bundler.project.projects import projects_below
from bundler.project.stateful import has_state
from bundler.refresh.sources import no_dagster
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.components import how_to_get_state
from bundler.setup.doctor.printed import in_directory
from bundler.system.process import check

# Where the public names for finding state-backed components appeared.
_DAGSTER_FLOOR = (1, 12)
_PACKAGES = ("dagster", "dagster-dbt", "dbt-core")
_QUESTION = """\
import importlib.metadata as m, importlib.util as u, json, platform, sys
def version(name):
    try:
        return m.version(name)
    except m.PackageNotFoundError:
        return None
module, *names = sys.argv[1:]
try:
    found = not module or u.find_spec(module) is not None
except ImportError:
    found = False
markers = {
    "implementation_name": sys.implementation.name,
    "implementation_version": platform.python_version(),
    "platform_python_implementation": platform.python_implementation(),
    "python_full_version": platform.python_version(),
    "python_version": ".".join(platform.python_version_tuple()[:2]),
}
print(json.dumps([found, {name: version(name) for name in names}, markers]))
"""


class PythonAnswer(NamedTuple):
    """has_module: whether it can import the module. versions: None for a package that it lacks.
    markers: what requirements may depend on."""

    has_module: bool
    versions: dict[str, str | None]
    markers: dict[str, str]


def configuration(patient: DoctorContext) -> Iterator[Finding]:
    """``[tool.state-bundler]``, and whether there is anything to bundle."""
    survey = patient.survey
    config = load(survey.root)
    given = f": {', '.join(config.given)}" if config.given else ": all defaults"
    yield Finding("ok", f"The configuration is valid{given}.")
    if survey.dagster is None and not config.sources:
        yield Finding(
            "fail",
            what_is_missing(survey.root),
            "There is nothing to refresh or embed.",
            way_out(survey.root, projects_below(survey.root)),
            is_end=True,
        )


def interpreter(patient: DoctorContext) -> Iterator[Finding]:
    """Which Python a build would use, and what is installed there."""
    survey = patient.survey
    found = patient.project.interpreter
    answer = patient.installed
    said = f"Python {answer['python']}, found by {found.found_by}"
    if survey.dagster is None:
        yield Finding("ok", f"{said}.")
        return
    dagster = answer["dagster"]
    if dagster is None and not has_state(survey):
        yield Finding(
            "warn",
            "The project's files have no state-backed component, so there is nothing to embed.",
            f"They were read, not loaded: {said} has no dagster.",
            f"{how_to_get_state(patient)}\nIf there is one, install the project and try again.",
            is_end=True,
            is_stateless=True,
        )
    elif dagster is None:
        yield Finding(
            "fail",
            no_dagster(found.path, patient.project),
            f"{said} has no dagster. Components are found by the project's own Dagster.",
            how_to_install(survey.root, found.found_by),
        )
    elif _parts(dagster) < _DAGSTER_FLOOR:
        yield Finding(
            "fail",
            f"{said}, has dagster {dagster}.",
            "State-backed components are public since version 1.12.",
            in_directory(how_to_add(survey.root, "dagster>=1.12"), survey.root),
        )
    else:
        yield Finding("ok", f"{said}, with dagster {dagster}.")


def installed(python: Path) -> dict[str, str | None]:
    """The version of a Python, and of the packages that a Dagster project needs in it."""
    answer = ask_python(python, _PACKAGES)
    return {"python": answer.markers["python_full_version"], **answer.versions}


def ask_python(python: Path, packages: Iterable[str], module: str = "") -> PythonAnswer:
    """Which packages an interpreter has, and whether it can import a module, if one is named."""
    # -I: what is asked is the environment, not what is around in the current directory.
    raw = check([str(python), "-I", "-c", _QUESTION, module, *packages], timeout=30)
    try:
        return PythonAnswer(*json.loads(raw))
    except ValueError as error:
        raise ToolFailed(f"{python} did not report its installed packages.") from error


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
