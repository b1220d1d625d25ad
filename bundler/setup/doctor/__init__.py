"""Every reason why a build would fail, or silently lose state, found in seconds.

A *check* looks at one thing and yields *findings*: what it found, why that matters, the line that
fixes it. A check that could not ask yields a failure, never nothing. `CHECKS` lists them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bundler.errors import BundlerError
from bundler.listener import SILENT, Listener
from bundler.project.projects import open_project
from bundler.project.survey import Survey, Together, survey
from bundler.refresh.known_components import discover
from bundler.refresh.model import Looked
from bundler.refresh.reach import look
from bundler.setup.file_edits import FileEdit
from bundler.setup.init import PARTS, plan, plan_parts
from bundler.setup.init.images import image_source

if TYPE_CHECKING:
    from bundler.project.projects import Project
    from bundler.setup.init.images import ImageSource

# How to fix what `init` can fix.
_FIX = "doctor --fix"

Grade = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """what: a message. why: the reason that it matters. fix: the line or command that fixes it.

    part: the part of `init` that fixes it safely; empty if only a user can.
    where: the file that it is about, with the line if known (``file:line``), or empty. A check
    names it relative to the project; `examine` yields it relative to the current directory.
    is_end: whether nothing else can be said after it. is_stateless: whether it says that the
    project has no state, so that a workspace need not warn about it.
    """

    grade: Grade
    what: str
    why: str = ""
    fix: str = ""
    part: str = ""
    where: str = ""
    is_end: bool = False
    is_stateless: bool = False


@dataclass(frozen=True)
class DoctorContext:
    """What is examined: a project's files, and what the command line says of it.

    reaches: whether the external systems are asked; else nothing that is asked leaves this machine.
    is_cached: whether the components may be those of an earlier load, if nothing has changed.
    """

    survey: Survey
    python: Path | None = None
    reaches: bool = False
    is_cached: bool = False

    @cached_property
    def project(self) -> Project:
        """The project with its interpreter. Raises what `open_project` raises."""
        return open_project(self.survey.root, python=self.python)

    @cached_property
    def installed(self) -> Mapping[str, str | None]:
        """The packages for a build that the project's interpreter has installed."""
        from bundler.setup.doctor.environment import installed

        return installed(self.project.interpreter.path)

    @cached_property
    def image(self) -> ImageSource:
        return image_source(self.survey)

    @cached_property
    def makes_wheels(self) -> bool:
        """Whether a wheel or a PEX is made of the project, as far as its files say."""
        from bundler.setup.doctor.packaging import makes_wheels

        return makes_wheels(self.survey, self.image.dockerfile)

    def looked(self) -> Looked:
        """The components, loaded once for all checks. Raises why they cannot be loaded."""
        if isinstance(self._looked, BundlerError):
            raise self._looked
        return self._looked

    @cached_property
    def _looked(self) -> Looked | BundlerError:
        try:
            if self.reaches:
                return look([self.project])
            return Looked(discover([self.project], SILENT, is_cached=self.is_cached))
        except BundlerError as error:
            return error


@dataclass(frozen=True)
class Check:
    """title: a noun for the report. look: yields the findings; may raise `BundlerError`.

    doing: what it does, where that can take long. is_fixable: whether a finding of it may name a
    part of `init`. is_shared: whether it is about the whole repository, so that all projects in it
    get the same findings.
    """

    title: str
    look: Callable[[DoctorContext], Iterator[Finding]]
    doing: str = ""
    is_fixable: bool = False
    is_shared: bool = False

    def answers(
        self, patient: DoctorContext, told: set[str], listener: Listener
    ) -> Iterator[Finding]:
        """What it says; a reason that an earlier one has given for failing is not repeated."""
        listener.working(self.doing or f"Checking: {self.title}")
        try:
            for finding in self.look(patient):
                if finding.grade != "fail" or finding.what not in told:
                    told.add(finding.what)
                    yield finding
        except BundlerError as error:
            if error.what not in told:
                told.add(error.what)
                yield Finding("fail", error.what, error.why, error.hint, where=error.where)
        finally:
            listener.working("")


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
        compose,
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
        Check("components", components.components, "Loading the project's components"),
        Check("credentials", credentials.credentials),
        Check("external systems", reach.reach),
        Check("state", state.state),
        Check("state contents", contents.contents),
        Check("build backend", packaging.backend, "Building a wheel of a copy", is_fixable=True),
        Check("build", build.build, "Reading the baseline"),
        Check("Docker context", docker.context, is_fixable=True),
        Check("Dockerfile", docker.dockerfiles),
        Check("Compose", compose.compose),
        Check("Docker engine", docker.engine, "Connecting to the Docker engine"),
    )


def examine(
    root: Path,
    *,
    python: Path | None = None,
    reaches: bool = False,
    is_cached: bool = False,
    listener: Listener = SILENT,
) -> Iterator[Examined]:
    """Runs the checks one after the other; each answer comes as soon as it is there.

    is_cached: as `DoctorContext` has it.
    Raises `ConfigurationError` if not even the project's TOML can be read.
    """
    patient = DoctorContext(survey(root), python, reaches, is_cached)
    told: set[str] = set()
    for check in checks():
        answers = check.answers(patient, told, listener)
        findings = tuple(_effective(patient.survey, answers))
        yield Examined(check.title, findings, check.is_shared)
        if any(finding.is_end for finding in findings):
            return


def _effective(survey: Survey, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings; a part of `init` is only named where it changes a file."""
    problems: dict[str, str | None] = {}
    for found in findings:
        here = os.path.relpath(survey.root / found.where) if found.where else ""
        finding = replace(found, where=here)
        if finding.part and finding.part not in problems:
            problems[finding.part] = _why_without_effect(survey, finding.part)
        problem = problems.get(finding.part)
        if problem is None:
            yield finding
        else:
            fix = problem if _FIX in finding.fix else finding.fix
            yield replace(finding, part="", fix=fix)


def _why_without_effect(survey: Survey, part: str) -> str | None:
    """Why a part of `init` changes nothing here; None if it does."""
    try:
        edits = plan(survey, without=[each.name for each in PARTS if each.name != part])
    except BundlerError as error:
        return error.hint or error.what
    return None if edits else "Make this change by hand."


def fixes(
    together: Together,
    *,
    python: Path | None = None,
    listener: Listener = SILENT,
) -> list[FileEdit]:
    """The edits that fix what can be fixed safely: those of `init`'s parts, and no other.

    What projects have in common is written once, as `init` writes it. Only the checks that may find
    such a thing are asked.
    """
    wanted = []
    for root in together.projects:
        patient = DoctorContext(survey(root), python)
        fixable = [check for check in checks() if check.is_fixable]
        answers = [it for check in fixable for it in check.answers(patient, set(), listener)]
        named = {finding.part for finding in _effective(patient.survey, iter(answers))}
        is_shared = together.root.is_relative_to(patient.survey.outer)
        fixed = survey(root, together) if is_shared else patient.survey
        wanted.append((fixed, [part for part in PARTS if part.name in named]))
    return plan_parts(wanted)
