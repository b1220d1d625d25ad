"""The findings of `verify` as data: our own JSON, GitHub workflow commands, SARIF."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bundler.artifacts.verify import VerifiedDirectory
from bundler.cli import documents, findings
from bundler.project.layout import repository_of
from bundler.workflows.policy import RULES
from bundler.workflows.verify import VerifyReport

_PROJECT_FILES = ("pyproject.toml", "dg.toml")


def formatted(reports: Sequence[VerifyReport], form: str) -> str:
    """The reports in a format other than text; empty, or ending in a newline."""
    if form == "json":
        return documents.as_text(documents.Verify, artifacts=[*map(_document, reports)])
    found = [finding for report in reports for finding in _placed(report)]
    return findings.github(found) if form == "github" else findings.sarif("verify", RULES, found)


def _document(report: VerifyReport) -> documents.Verified:
    verdict = report.verdict
    return documents.Verified.of(
        report,
        kind=verdict.kind if verdict else None,
        digest=verdict.digest if verdict else None,
        verified=report.error is None,
        passed=report.failure() is None,
        problems=[what for rule, what in report.findings() if rule == "integrity"],
        breaches=report.breaches,
        directories=[*map(_directory, verdict.directories)] if verdict else [],
    )


def _directory(found: VerifiedDirectory) -> documents.CheckedDirectory:
    states = found.manifest.states if found.manifest else ()
    return documents.CheckedDirectory.of(
        found,
        content_digest=found.manifest and found.manifest.content_digest,
        keys=[state.key for state in states],
    )


def _placed(report: VerifyReport) -> Iterator[findings.LocatedFinding]:
    """Each finding with a file and line: an artifact is none of the repository's.

    It is the file that configures the project here, and the line that names the key, if one does.
    """
    here = Path.cwd()
    file = next((here / name for name in _PROJECT_FILES if (here / name).is_file()), None)
    lines = file.read_text("utf-8", "replace").splitlines() if file else []
    shown = os.path.relpath(file, repository_of(here) or here) if file else report.name
    keys = {breach.what: breach.key for breach in report.breaches}
    for rule, what in report.findings():
        key = keys.get(what)
        named = (number for number, line in enumerate(lines, 1) if key and f'"{key}"' in line)
        title, line = f"state-bundler verify: {rule}", next(named, 1)
        yield findings.LocatedFinding(rule, "error", what, shown, title, line, report.name)
