"""Does a wheel of this project hold the state? Measured for each build backend."""

from __future__ import annotations

from collections.abc import Iterator

from bundler.bundle import STATE_DIRECTORY
from bundler.doctor import Finding, Patient
from bundler.edits import read_text
from bundler.init.pyproject import backend_line, backend_list
from bundler.survey import Survey, table

_WHY = (
    "uv build, pip wheel and `pex .` would make an artifact without state, and Dagster loads that "
    "as a location without assets."
)
# These drop the state whether the project's own ignore file names it or only Dagster's does.
_ALWAYS_DROP = ("poetry", "setuptools")


def backend(patient: Patient) -> Iterator[Finding]:
    """The trap of the backends that leave out what git ignores."""
    survey = patient.survey
    if survey.backend is None:
        yield Finding("ok", "Nothing builds a distribution of this project.")
        return
    target = backend_list(survey)
    if target is None or _names_the_state(survey, target[0]):
        yield Finding("ok", f"{survey.backend} puts the state into a wheel.")
    elif survey.backend in _ALWAYS_DROP or _root_rule(survey):
        what = f"{survey.backend} leaves the state out of a wheel."
        yield Finding("fail", what, _WHY, f"pyproject.toml: {backend_line(survey)}", "backend")
    else:
        what = (
            f"{survey.backend} puts the state into a wheel only as long as no ignore file of the "
            "project names it."
        )
        yield Finding("warn", what, _WHY, f"pyproject.toml: {backend_line(survey)}", "backend")


def _names_the_state(survey: Survey, path: tuple[str, ...]) -> bool:
    listed = table(survey.pyproject, *path[:-1]).get(path[-1], [])
    return any(STATE_DIRECTORY in str(item) for item in listed)


def _root_rule(survey: Survey) -> bool:
    return STATE_DIRECTORY in (read_text(survey.root / ".gitignore") or "")
