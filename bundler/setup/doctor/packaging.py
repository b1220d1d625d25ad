"""Does a wheel of this project hold the state? Measured for each build backend."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from bundler.project.survey import Survey, table
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.printed import set_in_pyproject, word
from bundler.setup.init.pyproject import backend_list
from bundler.state.bundle import STATE_DIRECTORY
from bundler.system.text_files import scanned

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
# For each backend, where people write what looks like the fix.
_LOOK_ALIKE: dict[str, tuple[tuple[str, ...], ...]] = {
    "hatchling": (
        ("tool", "hatch", "build", "include"),
        ("tool", "hatch", "build", "artifacts"),
        ("tool", "hatch", "build", "targets", "wheel", "include"),
        ("tool", "hatch", "build", "targets", "wheel", "artifacts"),
        ("tool", "hatch", "build", "targets", "wheel", "force-include"),
    ),
    "setuptools": (("tool", "setuptools", "package-data", "*"),),
}


def backend(patient: DoctorContext) -> Iterator[Finding]:
    """The trap of the backends that leave out what git ignores, and what they keep too long."""
    finding = _by_the_backend(patient.survey)
    if finding.grade == "fail" and not makes_wheels(patient.survey):
        finding = replace(finding, grade="warn", why=f"{finding.why} {_ONLY_IMAGES}")
    yield finding
    yield from _left_over(patient.survey)


def makes_wheels(survey: Survey) -> bool:
    """Whether a wheel or a PEX is made of the project: if there is no Dockerfile, or if a file that
    says what is built names what builds them."""
    if not survey.dockerfiles:
        return True
    files = [path for pattern in _RECIPES for path in survey.outer.glob(pattern)]
    files += [survey.root / path for path in survey.dockerfiles]
    files += [path for pattern in _RECIPES for path in survey.root.glob(pattern)]
    return any(_BUILDS_WHEELS.search(scanned(file)) for file in files)


def _by_the_backend(survey: Survey) -> Finding:
    why = f"{_WHY}{_WHY_WITH_DAGSTER if survey.dagster else ''}."
    if survey.backend is None:
        return Finding("ok", "This project has no build backend.")
    target = backend_list(survey)
    if target is None and survey.backend in _ALWAYS_DROP and survey.state_directories:
        return Finding(
            "warn",
            f"{survey.state_directories[0]} is not in a package: {survey.backend} includes no "
            "state in a wheel.",
            why,
            "Move the state directory into a package: change the path of its "
            "[[tool.state-bundler.source]].",
        )
    if target is None or _names_the_state(survey, *target):
        return Finding("ok", f"{survey.backend} includes the state in a wheel.")
    fix = _fix(survey, *target)
    if looks := _looks_like_it(survey, *target):
        what = f"{survey.backend} excludes the state from a wheel; {looks} does not change that."
        return Finding("fail", what, why, fix, "backend")
    if survey.backend in _ALWAYS_DROP or _root_rule(survey):
        what = f"{survey.backend} excludes the state from a wheel."
        return Finding("fail", what, why, fix, "backend")
    what = (
        f"{survey.backend} includes the state in a wheel only as long as no ignore file of the "
        "project lists it."
    )
    return Finding("warn", what, why, fix, "backend")


def _fix(survey: Survey, path: tuple[str, ...], items: list[Any]) -> str:
    """The list with the state in it, behind what it has already."""
    present = table(survey.pyproject, *path[:-1]).get(path[-1], [])
    kept = present if isinstance(present, list) else []
    return set_in_pyproject(path, [*kept, *(item for item in items if item not in kept)])


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


def _looks_like_it(survey: Survey, right: tuple[str, ...], items: list[Any]) -> str:
    """A setting that names the state and does not put it into every wheel; measured, one by one."""
    for *path, name in _LOOK_ALIKE.get(survey.backend or "", ()):
        listed = table(survey.pyproject, *path).get(name, [])
        if _core(items[0]) in str(listed) or (name == right[-1] and "**/*" in listed):
            return f"[{'.'.join(path)}] {name}"
    return ""


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


def _root_rule(survey: Survey) -> bool:
    rules = scanned(survey.root / ".gitignore")
    return any(name in rules for name in (STATE_DIRECTORY, *map(str, survey.state_directories)))
