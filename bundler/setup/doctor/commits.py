"""Checks that an accidental commit of state is prevented before a build would notice."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress

from bundler.errors import BundlerError, ConfigurationError
from bundler.guard import git_hooks
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.printed import command, in_directory
from bundler.setup.file_edits import read_text
from bundler.setup.init.precommit import HOOK, INSTALL, names_hook

_WHY = "Without a hook, a forced `git add` is only noticed by the next build, after the push."


def commits(patient: DoctorContext) -> Iterator[Finding]:
    """Whether commits are checked, by pre-commit or by a hook of git's own."""
    if patient.survey.repository is None:
        return
    with suppress(BundlerError):  # git cannot say; reported under "repository"
        yield from _hooks(patient)


def _hooks(patient: DoctorContext) -> Iterator[Finding]:
    survey = patient.survey
    configured = read_text(survey.outer / ".pre-commit-config.yaml")
    try:
        named = configured is not None and names_hook(configured)
    except ConfigurationError as error:
        yield Finding("warn", error.what, _WHY, error.hint)
        return
    # Nobody commits in a CI job, and nobody installs hooks there.
    if named and (os.environ.get("CI") or git_hooks.starts_framework(survey.root)):
        yield Finding("ok", f"pre-commit runs {HOOK}.")
    elif git_hooks.is_installed(survey.root):
        yield Finding("ok", "A git hook runs the guard on every commit.")
    elif named:
        what = f"pre-commit would run {HOOK}, but it is not installed in this clone."
        yield Finding("warn", what, _WHY, _install(patient))
    elif configured is not None:
        what = f".pre-commit-config.yaml does not list {HOOK}."
        fix = command("state-bundler doctor --fix", survey.root)
        yield Finding("warn", what, _WHY, fix, "pre-commit")
    else:
        what = "No hook runs the guard on commits."
        yield Finding("warn", what, _WHY, command("state-bundler init --git-hooks", survey.root))


def _install(patient: DoctorContext) -> str:
    """The command that installs the guard for commits, with the tools that are installed here."""
    survey = patient.survey
    for program in ("pre-commit", "prek"):
        if shutil.which(program):
            return in_directory(INSTALL.replace("pre-commit", program, 1), survey.outer)
    try:
        here = patient.project.interpreter.path.with_name("pre-commit")
    except BundlerError:  # reported under "interpreter"
        here = None
    if here is not None and here.exists():
        return in_directory(INSTALL.replace("pre-commit", shlex.quote(str(here)), 1), survey.outer)
    return command("state-bundler init --git-hooks", survey.root)
