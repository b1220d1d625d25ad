"""What stands between a slip of the hand and the repository, before a build would notice."""

from __future__ import annotations

from collections.abc import Iterator

from bundler.doctor import Finding, Patient
from bundler.edits import read_text
from bundler.errors import BundlerError
from bundler.init.precommit import HOOK

_WHY = "Without it a forced `git add` is noticed at the next build, when it is pushed already."


def commits(patient: Patient) -> Iterator[Finding]:
    """Whether a commit is asked about: by pre-commit, or by a hook of git's own."""
    survey = patient.survey
    if survey.repository is None:
        return
    configured = read_text(survey.outer / ".pre-commit-config.yaml")
    if configured is not None and HOOK in configured:
        yield Finding("ok", f"pre-commit runs {HOOK}.")
    elif _has_hook(patient):
        yield Finding("ok", "git's own hook asks the guard at every commit.")
    elif configured is not None:
        what = f".pre-commit-config.yaml does not name {HOOK}."
        yield Finding("warn", what, _WHY, "state-bundler init", "pre-commit")
    else:
        what = "No hook asks the guard when a commit is made."
        yield Finding("warn", what, _WHY, "state-bundler init, or state-bundler init --git-hooks")


def _has_hook(patient: Patient) -> bool:
    from bundler import githooks

    try:
        return githooks.is_installed(patient.survey.root)
    except BundlerError:
        return False  # what git says against it stands under "repository"
