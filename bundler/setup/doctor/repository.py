"""Checks that the state is kept out of the repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bundler.guard.moments import check
from bundler.guard.verdict import grouped
from bundler.guard.wheel import RULE as WHEEL_DROPS_STATE
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
    # Another check tries what the build backend drops.
    findings = tuple(it for it in verdict.findings if it.rule != WHEEL_DROPS_STATE)
    for finding in grouped(findings):
        part = "ignore" if finding.rule in _MENDED_BY_A_RULE else ""
        where = os.path.relpath(Path(verdict.top, finding.where), root)
        yield Finding(finding.grade, finding.what, finding.why, finding.fix, part, where)
    if not findings:
        yield Finding("ok", "git ignores the state in every clone.")
