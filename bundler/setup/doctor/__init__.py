"""Every reason why a build would fail, or silently lose state, found in seconds.

A *check* looks at one thing and yields *findings*: what it found, why that matters, the line that
fixes it. A check that could not ask yields a failure, never nothing. `CHECKS` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bundler.errors import BundlerError
from bundler.project.survey import Survey, survey
from bundler.setup.file_edits import FileEdit

Grade = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """what: a message. why: the reason that it matters. fix: the line or command that fixes it.

    part: the part of `init` that fixes it safely; empty if only a user can.
    is_end: whether nothing else can be said after it.
    """

    grade: Grade
    what: str
    why: str = ""
    fix: str = ""
    part: str = ""
    is_end: bool = False


@dataclass(frozen=True)
class DoctorContext:
    """What is examined: a project's files, and what the command line says of it."""

    survey: Survey
    python: Path | None = None


@dataclass(frozen=True)
class Check:
    """title: a noun for the report. look: yields the findings; may raise `BundlerError`.

    is_fixable: whether a finding of it may name a part of `init`. is_shared: whether it is about
    the whole repository, so that all projects in it get the same findings.
    """

    title: str
    look: Callable[[DoctorContext], Iterator[Finding]]
    is_fixable: bool = False
    is_shared: bool = False


@dataclass(frozen=True)
class Examined:
    """One check's answer. is_shared: as the check says."""

    title: str
    findings: tuple[Finding, ...]
    is_shared: bool = False


def checks() -> tuple[Check, ...]:
    """All checks, in the order of the report: what later ones build on comes first."""
    from bundler.setup.doctor import (
        build,
        commits,
        components,
        contents,
        credentials,
        docker,
        environment,
        packaging,
        reach,
        repository,
        state,
    )

    return (
        Check("configuration", environment.configuration),
        Check("repository", repository.guard, is_fixable=True, is_shared=True),
        Check("commits", commits.commits, is_fixable=True),
        Check("interpreter", environment.interpreter),
        Check("credentials", credentials.credentials),
        Check("components", components.components),
        Check("external systems", reach.reach),
        Check("state", state.state),
        Check("state contents", contents.contents),
        Check("build backend", packaging.backend, is_fixable=True),
        Check("build", build.build),
        Check("Docker context", docker.context, is_fixable=True),
        Check("Dockerfile", docker.dockerfiles),
        Check("Docker engine", docker.engine),
    )


def examine(root: Path, *, python: Path | None = None) -> Iterator[Examined]:
    """Runs the checks one after the other; each answer comes as soon as it is there.

    Raises `ConfigurationError` if not even the project's TOML can be read.
    """
    patient = DoctorContext(survey(root), python)
    told: set[str] = set()
    for check in checks():
        findings = tuple(_answers(check, patient, told))
        yield Examined(check.title, findings, check.is_shared)
        if any(finding.is_end for finding in findings):
            return


def _answers(check: Check, patient: DoctorContext, told: set[str]) -> Iterator[Finding]:
    """What a check says; a reason that an earlier one has given for failing is not repeated."""
    try:
        for finding in check.look(patient):
            told.add(finding.what)
            yield finding
    except BundlerError as error:
        if error.what not in told:
            told.add(error.what)
            yield Finding("fail", error.what, fix=error.hint)


def fixes(root: Path) -> list[FileEdit]:
    """The edits that fix what can be fixed safely: those of `init`'s parts, and no other.

    Only the checks that may find such a thing are asked: they look at files, in no time.
    """
    from bundler.setup.init import PARTS, plan

    patient = DoctorContext(survey(root))
    asked = [check for check in checks() if check.is_fixable]
    findings = [finding for check in asked for finding in _answers(check, patient, set())]
    wanted = {finding.part for finding in findings if finding.part}
    return plan(survey(root), without=[part.name for part in PARTS if part.name not in wanted])
