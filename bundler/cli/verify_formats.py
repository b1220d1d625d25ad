"""The findings of `verify` as data: our own JSON, GitHub workflow commands, SARIF."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.artifacts.verify import Verdict, VerifiedDirectory
from bundler.cli import documents, findings
from bundler.errors import BundlerError, Findings
from bundler.project.layout import repository_of
from bundler.system.wording import counted
from bundler.workflows.policy import RULES, Breach

_PROJECT_FILES = ("pyproject.toml", "dg.toml")


@dataclass(frozen=True)
class VerifyReport:
    """The findings for one artifact.

    name: as the user gave it. verdict: None if it could not be read, for the reason in error.
    signer: who signed it, if that was checked.
    """

    name: str
    verdict: Verdict | None = None
    breaches: tuple[Breach, ...] = ()
    signer: str | None = None
    error: BundlerError | None = None

    def failure(self) -> BundlerError | None:
        """One error for everything that is wrong with the artifact."""
        if self.error is not None:
            return self.error
        if not self.breaches:
            return None
        hints = dict.fromkeys(it.hint or RULES[it.rule][1] for it in self.breaches)
        lines: dict[str, tuple[str, ...]] = {}
        for breach in self.breaches:
            lines[breach.rule] = (*lines.get(breach.rule, ()), breach.what)
        policy = f"{self.name} is intact, but violates the policy:"
        error = Findings(
            f"{policy} {' '.join(breach.what for breach in self.breaches)}", hint="\n".join(hints)
        )
        if len(self.breaches) > 1:
            error.headline = f"{policy} {counted(len(self.breaches), 'finding')}."
            error.details = tuple(lines.items())
        return error

    def findings(self) -> Iterator[tuple[str, str]]:
        """Every violated rule with its message."""
        problems = self.verdict.all_problems if self.verdict else ()
        if self.error is not None and not problems:
            problems = (self.error.what,)
        yield from (("integrity", problem) for problem in problems)
        yield from ((breach.rule, breach.what) for breach in self.breaches)


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
