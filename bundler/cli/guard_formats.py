"""A verdict as data: our own JSON, GitHub workflow commands, SARIF for code scanning."""

from __future__ import annotations

from bundler.cli import findings
from bundler.guard.verdict import GuardVerdict

_LEVELS = {"fail": "error", "warn": "warning"}
_HELP = "The message of each result has the command that fixes it."
_RULES = {
    "state-in-index": "A state file is in the index.",
    "state-in-head": "A state file is in HEAD.",
    "state-in-commit": "A pushed or reachable commit contains a state file.",
    "state-copy": "A file is a copy of a current state file.",
    "state-unprotected": "git add -A would add state.",
    "protection-missing": "No ignore rule covers a state directory yet.",
    "protection-local": "A state directory is ignored on this machine only.",
    "project-unread": "A partial clone lacks a project file, and with it the sources.",
    "history-unknown": "A shallow clone hides the content of older commits.",
}


def formatted(verdict: GuardVerdict, form: str) -> str:
    """The verdict in a format other than text, ending in a newline."""
    if form == "json":
        from bundler.cli import documents

        text = findings.printable
        return documents.as_text(
            documents.Guard,
            verdict,
            directories=[*map(text, verdict.directories)],
            findings=[
                {name: text(value) for name, value in finding._asdict().items()}
                for finding in verdict.findings
            ],
        )
    found = [
        findings.LocatedFinding(
            it.rule, _LEVELS[it.grade], f"{it.what} {it.why} Fix: {it.fix}", it.where, it.rule
        )
        for it in verdict.findings
    ]
    if form == "github":
        return findings.github(found)
    return findings.sarif("guard", {name: (text, _HELP) for name, text in _RULES.items()}, found)
