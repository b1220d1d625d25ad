"""The findings of `verify` as data: our own JSON, GitHub workflow commands, SARIF."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bundler.artifacts.verify import Verdict
from bundler.cli.console import as_json, hidden
from bundler.errors import BundlerError, Findings
from bundler.version import SCHEMA_VERSION, __version__
from bundler.workflows.policy import DESCRIPTIONS, Breach

_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


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
        return Findings(
            f"{self.name} is intact, but violates the policy: "
            + " ".join(breach.what for breach in self.breaches),
            hint=" ".join(breach.hint for breach in self.breaches if breach.hint),
        )

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
    return _dumped(
        {"schemaVersion": SCHEMA_VERSION, "artifacts": [_as_json(item) for item in reports]}
    )


def _as_json(report: VerifyReport) -> dict[str, Any]:
    verdict = report.verdict
    return {
        "name": report.name,
        "kind": verdict and verdict.kind,
        "digest": verdict and verdict.digest,
        "verified": report.error is None,
        "passed": report.failure() is None,
        "signer": report.signer,
        "problems": [what for rule, what in report.findings() if rule == "integrity"],
        "breaches": [
            {"rule": breach.rule, "key": breach.key, "what": breach.what}
            for breach in report.breaches
        ],
        "directories": [
            {
                "path": directory.path,
                "contentDigest": directory.manifest and directory.manifest.content_digest,
                "keys": [state.key for state in directory.manifest.states]
                if directory.manifest
                else [],
                "problems": list(directory.problems),
            }
            for directory in (verdict.directories if verdict else ())
        ],
    }


def _dumped(value: object) -> str:
    return as_json(value, indent=2, ensure_ascii=False) + "\n"


def _github(reports: Sequence[VerifyReport]) -> str:
    return "".join(
        f"::error title={_property(f'state-bundler verify: {rule}')}::"
        f"{_escaped(hidden(f'{report.name}: {what}'))}\n"
        for report in reports
        for rule, what in report.findings()
    )


def _escaped(text: str) -> str:
    # https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _sarif(reports: Sequence[VerifyReport]) -> str:
    # https://docs.oasis-open.org/sarif/sarif/v2.1.0/
    driver = {
        "name": "state-bundler verify",
        "version": __version__,
        "rules": [
            {"id": name, "shortDescription": {"text": text}} for name, text in DESCRIPTIONS.items()
        ],
    }
    results = [
        {
            "ruleId": rule,
            "level": "error",
            "message": {"text": what},
            "locations": [{"logicalLocations": [{"name": report.name, "kind": "module"}]}],
        }
        for report in reports
        for rule, what in report.findings()
    ]
    return _dumped(
        {
            "$schema": _SARIF_SCHEMA,
            "version": "2.1.0",
            "runs": [{"tool": {"driver": driver}, "results": results}],
        }
    )


_FORMATS: dict[str, Callable[[Sequence[VerifyReport]], str]] = {
    "json": _json,
    "github": _github,
    "sarif": _sarif,
}
