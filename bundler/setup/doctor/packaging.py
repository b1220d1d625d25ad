"""Whether a wheel of this project has the state: tried, or else a guess that is called one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from bundler.errors import BundlerError, ConfigurationError, ToolFailed
from bundler.project.config import pyproject_of, table
from bundler.project.survey import Survey
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.printed import set_in_pyproject, word
from bundler.setup.doctor.probe import PREFIX, Change, Probe, Route, probing, unchanged
from bundler.setup.doctor.probe_copy import MadeUpFile, ProjectCopy
from bundler.setup.init.pyproject import add_backend_list, backend_list
from bundler.state.bundle import STATE_DIRECTORY
from bundler.system.reading import scanned

_WHY = "uv build, pip wheel and `pex .` would build an artifact without state"
_WHY_WITH_DAGSTER = ", and Dagster loads it as a location without assets"
_ONLY_IMAGES = (
    "This project has a Dockerfile, and no file says that wheels or PEX files are built: its "
    "images are not affected."
)
# Files that say what is built.
_RECIPES = (
    *(".github/workflows/*.y*ml", ".github/actions/**/action.y*ml", ".gitlab-ci.y*ml"),
    *(".gitlab/**/*.y*ml", ".circleci/**/*.y*ml", ".buildkite/**/*.y*ml", ".travis.y*ml"),
    *("azure-pipelines*.y*ml", "bitbucket-pipelines.y*ml", "buildspec*.y*ml", "cloudbuild*.y*ml"),
    *(".drone.y*ml", ".woodpecker*.y*ml", "Jenkinsfile*", "*.sh", "bin/*", "ci/**/*.sh"),
    *("scripts/**/*.sh", "Makefile", "*.mk", "[jJ]ustfile", "Taskfile.y*ml", "noxfile.py"),
    *("tox.ini", "BUILD", "BUILD.pants"),
)
_BUILDS_WHEELS = re.compile(
    r"-m[\"', \t]+build\b|\b(pip[\d.]* wheel|(uv|hatch|poetry|pdm|flit)[\"', \t]+build|"
    r"pyproject-build|twine|"
    r"build (wheel|pex)|pex-bundle|pex(?= [-.\w])|pex_binary|python_distribution)\b"
)
# These drop the state whether the project's own ignore file names it or only Dagster's does.
_ALWAYS_DROP = ("poetry", "setuptools")
# Where each backend is configured.
_TABLES = {
    "flit": ("flit",),
    "hatchling": ("hatch", "build"),
    "pdm": ("pdm", "build"),
    "poetry": ("poetry",),
    "setuptools": ("setuptools",),
    "uv_build": ("uv", "build-backend"),
}
_IN_THE_PROBE = re.compile(rf"/[^\s'\"]*/{PREFIX}[^/\s]+/")
_EXCLUDES = re.compile(r"exclude|only-include|ignore-vcs|find")
_OURS = "Build the wheel with state-bundler, which embeds the state whatever the backend does."


def backend(patient: DoctorContext) -> Iterator[Finding]:
    """Whether a wheel has the state, and what setuptools keeps too long."""
    yield replace(_by_the_backend(patient), where="pyproject.toml")
    yield from _left_over(patient.survey)


def makes_wheels(survey: Survey, declared: Path | None) -> bool:
    """Whether a wheel or a PEX is made of the project: if there is no Dockerfile, or if a file that
    says what is built names what builds them.

    declared: the Dockerfile of the project's image, wherever in the repository it is.
    """
    dockerfiles = [survey.root / path for path in survey.dockerfiles]
    dockerfiles += [declared] if declared is not None else []
    if not dockerfiles:
        return True
    folders = (survey.outer, survey.root)
    recipes = (path for each in folders for pattern in _RECIPES for path in each.glob(pattern))
    return any(_BUILDS_WHEELS.search(scanned(file)) for file in chain(dockerfiles, recipes))


def _by_the_backend(patient: DoctorContext) -> Finding:
    survey = patient.survey
    if survey.backend is None:
        return Finding("ok", "This project has no build backend.")
    if not survey.state_directories:
        return Finding("ok", "This project has no state directory.")
    if not patient.makes_wheels:
        guess = _guess(survey)
        what = f"No wheel was tried; guess: {guess.what}"
        if guess.grade == "ok":
            return replace(guess, what=what)
        return replace(guess, grade="warn", what=what, why=f"{guess.why} {_ONLY_IMAGES}")
    try:
        with probing(survey, _python(patient)) as probe:
            return _judge(survey, probe)
    except (BundlerError, OSError) as error:
        guess = _guess(survey)
        return replace(guess, what=f"Could not try: {_reason(str(error))}; guess: {guess.what}")


def _reason(said: str) -> str:
    """Without the path of the copy, which is removed by then."""
    return _IN_THE_PROBE.sub("", said).rstrip(".")


def _python(patient: DoctorContext) -> Path | None:
    try:
        return patient.project.interpreter.path
    except BundlerError:  # the check of the interpreter says why
        return None


# --- by trying --------------------------------------------------------------------------------


class _ProbedWheel(NamedTuple):
    """lost: what a wheel lacks. route: of that wheel. problem: why it could not be built."""

    lost: tuple[MadeUpFile, ...]
    route: Route
    problem: str = ""

    @property
    def is_whole(self) -> bool:
        return not self.lost and not self.problem

    @property
    def is_certain(self) -> bool:
        return any(file.is_certain for file in self.lost)


def _outcome(probe: Probe, change: Change = unchanged) -> _ProbedWheel:
    """Of the first route that loses something. Raises as `Probe.lost` does."""
    direct = _ProbedWheel(probe.lost("direct", change), "direct")
    if not direct.is_whole:
        return direct
    try:
        return _ProbedWheel(probe.lost("sdist", change), "sdist")
    except ToolFailed as error:
        return _ProbedWheel((), "sdist", error.what)


def _judge(survey: Survey, probe: Probe) -> Finding:
    """Tried as if an ignore rule named the state, then as it is, then with the fix."""
    name = survey.backend
    states = survey.state_directories
    ignored = _outcome(probe, lambda copy: copy.ignore(states))
    if ignored.is_whole:
        return Finding("ok", f"{name} includes the state in a wheel: a wheel was tried.")
    why = _why(survey)
    outcome = ignored if probe.copy.ignores(states) or ignored.problem else _outcome(probe)
    if outcome.problem:
        what = f"{name} includes the state in a wheel. Could not try a wheel built from an sdist: "
        return Finding("warn", f"{what}{_reason(outcome.problem)}.", why)
    if outcome.is_certain and (outside := _not_in_a_package(survey)):
        return outside
    fix, part = _tried_fix(survey, probe)
    if outcome.is_whole or (ignored.is_certain and not outcome.is_certain):
        return Finding("warn", _luck(survey), why, fix, part)
    if not outcome.is_certain:
        # What only dbt's state has: its project, with folders that the project may ignore.
        what = f"{name} includes a file named state in a wheel, but not dbt's target/manifest.json."
        return Finding("warn", what, why, fix, part)
    by = " that is built from an sdist" if outcome.route == "sdist" else ""
    return Finding(
        "fail", f"{name} excludes the state from a wheel{by}{_despite(survey)}.", why, fix, part
    )


def _tried_fix(survey: Survey, probe: Probe) -> tuple[str, str]:
    """The fix, and the part of `init` that makes it: the backend's list if that is enough."""

    def change(copy: ProjectCopy) -> None:
        copy.ignore(survey.state_directories)
        path = pyproject_of(copy.root)
        fixed = add_backend_list(path.read_text(encoding="utf-8"), survey)
        if fixed is None:
            raise ToolFailed("The fix cannot be written into pyproject.toml.")
        path.write_text(fixed, encoding="utf-8")

    target = backend_list(survey)
    with suppress(ToolFailed, ConfigurationError):
        if target is not None and _outcome(probe, change).is_whole:
            return _fix(survey, *target), "backend"
    settings = ", ".join(_excluding(survey))
    return (
        f"Change the setting that excludes it: {settings}. Or: {_OURS}" if settings else _OURS,
        "",
    )


# --- by guessing ------------------------------------------------------------------------------


def _guess(survey: Survey) -> Finding:
    """What the backend does without any setting, or with the list that `init` sets."""
    why = _why(survey)
    target = backend_list(survey)
    if target is None and survey.backend in _ALWAYS_DROP and (it := _not_in_a_package(survey)):
        return it
    if target is None or _names_the_state(survey, *target):
        what = f"{survey.backend} includes the state in a wheel"
        if settings := ", ".join(_excluding(survey)):
            return Finding("warn", f"{what}, unless this excludes it: {settings}.", why)
        if survey.backend not in _TABLES:
            return Finding(
                "warn", f"{survey.backend} may exclude the state from a wheel.", why, _OURS
            )
        return Finding("ok", f"{what}.")
    fix = _fix(survey, *target)
    if survey.backend in _ALWAYS_DROP or _despite(survey) or _is_ignored(survey):
        what = f"{survey.backend} excludes the state from a wheel{_despite(survey)}."
        return Finding("fail", what, why, fix, "backend")
    return Finding("warn", _luck(survey), why, fix, "backend")


def _is_ignored(survey: Survey) -> bool:
    above = [
        path for path in (survey.root, *survey.root.parents) if path.is_relative_to(survey.outer)
    ]
    texts = [scanned(path / name) for path in above for name in (".gitignore", ".hgignore")]
    names = (STATE_DIRECTORY, *map(str, survey.state_directories))
    return any(name in text for text in texts for name in names)


def _names_the_state(survey: Survey, path: tuple[str, ...], items: list[Any]) -> bool:
    listed = [str(item) for item in table(survey.pyproject, *path[:-1]).get(path[-1], [])]
    if survey.backend == "hatchling":
        # Without these stars it is the top of the project that is meant.
        right = ("**/", "/", *map(str, survey.state_directories))
        listed = [item for item in listed if item.startswith(right)]
    return all(any(core in item for item in listed) for core in map(_core, items))


def _core(item: Any) -> str:
    """What an item of the list has in it, however it is written."""
    text = str(item["path"] if isinstance(item, Mapping) else item)
    return STATE_DIRECTORY if STATE_DIRECTORY in text else text.strip("/*")


# --- what is said -----------------------------------------------------------------------------


def _why(survey: Survey) -> str:
    return f"{_WHY}{_WHY_WITH_DAGSTER if survey.dagster else ''}."


def _luck(survey: Survey) -> str:
    return (
        f"{survey.backend} includes the state in a wheel only as long as no ignore file of the "
        "project lists it."
    )


def _not_in_a_package(survey: Survey) -> Finding | None:
    for path, place in survey.places.items():
        if "/" not in place:
            return Finding(
                "warn",
                f"{path} is not in a package: {survey.backend} includes no state in a wheel.",
                _why(survey),
                "Move the state directory into a package: change the path of its "
                "[[tool.state-bundler.source]].",
            )
    return None


def _fix(survey: Survey, path: tuple[str, ...], items: list[Any]) -> str:
    """The list with the state in it, behind what it has already."""
    present = table(survey.pyproject, *path[:-1]).get(path[-1], [])
    kept = present if isinstance(present, list) else []
    return set_in_pyproject(path, [*kept, *(item for item in items if item not in kept)])


def _despite(survey: Survey) -> str:
    """The setting that names the state, and does not put it into every wheel."""
    names = (*(path.name for path in survey.state_directories), "**/*")
    for where, name, value in _settings(survey):
        if not _EXCLUDES.search(name) and any(text in value for text in names):
            return f"; [{where}] {name} does not change that"
    return ""


def _excluding(survey: Survey) -> Iterator[str]:
    """The settings that may exclude the state."""
    for where, name, value in _settings(survey):
        if _EXCLUDES.search(f"{where}.{name}") or "!" in value:
            yield f"[{where}] {name}"
    if survey.backend == "setuptools" and (survey.root / "MANIFEST.in").exists():
        yield "MANIFEST.in"


def _settings(survey: Survey) -> Iterator[tuple[str, str, str]]:
    """The backend's settings: their table, their name, and their value as text."""
    pending = [("tool", *_TABLES.get(survey.backend or "", ("",)))]
    while pending:
        path = pending.pop()
        for name, value in table(survey.pyproject, *path).items():
            if isinstance(value, Mapping):
                pending.append((*path, name))
            else:
                yield ".".join(path), name, str(value)


def _left_over(survey: Survey) -> Iterator[Finding]:
    """setuptools copies into build/lib and deletes nothing there."""
    found = next((survey.root / "build" / "lib").rglob(STATE_DIRECTORY), None)
    if survey.backend == "setuptools" and found is not None:
        yield Finding(
            "fail",
            f"{found.relative_to(survey.root)} contains the states of an earlier build.",
            "setuptools copies everything in build/lib into the next wheel, including deleted "
            "keys.",
            f"rm -rf {word(survey.root, 'build/lib')}",
        )
