"""Checks that the state is kept out of the repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bundler.guard.moments import check
from bundler.guard.verdict import grouped
from bundler.project.config import load
from bundler.project.source_paths import refuse_shared
from bundler.setup.doctor import DoctorContext, Finding

# Rules of the guard that a line in the project's ignore file satisfies.
_MENDED_BY_A_RULE = ("state-unprotected", "protection-missing", "protection-local")


def guard(patient: DoctorContext) -> Iterator[Finding]:
    """The guard's own verdict, as before a build."""
    root = patient.survey.root
    config = load(root)
    refuse_shared(config, patient.survey.dagster)
    directories = [root / source.path for source in config.sources]
    verdict = check(root, "build", directories, config.guard_allow)
    for finding in grouped(verdict.findings):
        part = "ignore" if finding.rule in _MENDED_BY_A_RULE else ""
        where = os.path.relpath(Path(verdict.top, finding.where), root)
        yield Finding(finding.grade, finding.what, finding.why, finding.fix, part, where)
    if not verdict.findings:
        yield Finding("ok", "git ignores the state in every clone.")
