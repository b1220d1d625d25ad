"""The findings of `verify` as data: our own JSON, GitHub workflow commands, SARIF."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.artifacts.verify import Verdict, VerifiedDirectory
from bundler.cli import documents, sarif
from bundler.cli.console import as_json, hidden
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
    return _FORMATS[form](reports)


def _json(reports: Sequence[VerifyReport]) -> str:
    return documents.as_text(documents.Verify, artifacts=[*map(_document, reports)])


def _document(report: VerifyReport) -> documents.Verified:
    verdict = report.verdict
    return documents.Verified(
        name=report.name,
        kind=verdict.kind if verdict else None,
        digest=verdict.digest if verdict else None,
        verified=report.error is None,
        passed=report.failure() is None,
        signer=report.signer,
        problems=[what for rule, what in report.findings() if rule == "integrity"],
        breaches=[documents.Breach.of(breach) for breach in report.breaches],
        directories=[*map(_directory, verdict.directories)] if verdict else [],
    )


def _directory(found: VerifiedDirectory) -> documents.VerifiedDirectory:
    states = found.manifest.states if found.manifest else ()
    return documents.VerifiedDirectory.of(
        found,
        content_digest=found.manifest and found.manifest.content_digest,
        keys=[state.key for state in states],
    )


def _dumped(value: object) -> str:
    return as_json(value, indent=2, ensure_ascii=False) + "\n"


def _github(reports: Sequence[VerifyReport]) -> str:
    return "".join(
        f"::error file={_property(file)},line={line},"
        f"title={_property(f'state-bundler verify: {rule}')}::"
        f"{_escaped(hidden(f'{report.name}: {what}'))}\n"
        for report in reports
        for rule, what, file, line in _placed(report)
    )


def _escaped(text: str) -> str:
    # https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _sarif(reports: Sequence[VerifyReport]) -> str:
    results = [
        sarif.result(rule, "error", what, os.fsencode(file), line=line, name=report.name)
        for report in reports
        for rule, what, file, line in _placed(report)
    ]
    return _dumped(sarif.log("verify", RULES, results))


def _placed(report: VerifyReport) -> Iterator[tuple[str, str, str, int]]:
    """Each finding with a file and line: an artifact is none of the repository's.

    It is the file that configures the project here, and the line that names the key, if one does.
    """
    here = Path.cwd()
    file = next((here / name for name in _PROJECT_FILES if (here / name).is_file()), None)
    lines = file.read_text("utf-8", "replace").splitlines() if file else []
    top = repository_of(here) or here
    shown = os.path.relpath(file, top) if file else report.name
    keys = {breach.what: breach.key for breach in report.breaches}
    for rule, what in report.findings():
        key = keys.get(what)
        named = (number for number, line in enumerate(lines, 1) if key and f'"{key}"' in line)
        yield rule, what, shown, next(named, 1)


_FORMATS: dict[str, Callable[[Sequence[VerifyReport]], str]] = {
    "json": _json,
    "github": _github,
    "sarif": _sarif,
}
