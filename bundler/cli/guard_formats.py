"""A verdict as data: our own JSON, GitHub workflow commands, SARIF for code scanning."""

from __future__ import annotations

import json

from bundler.guard.verdict import GuardVerdict
from bundler.version import SCHEMA_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


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
    "history-unknown": "A shallow clone hides the content of older commits.",
    "wheel-drops-state": "An ignore rule would drop the state from the wheel.",
}


def formatted(verdict: GuardVerdict, form: str) -> str:
    """The verdict in a format other than text, ending in a newline."""
    return _FORMATS[form](verdict)


def _json(verdict: GuardVerdict) -> str:
    return _dumped(
        {
            "schemaVersion": SCHEMA_VERSION,
            "moment": verdict.moment,
            "failed": verdict.failed,
            "directories": [_text(directory) for directory in verdict.directories],
            "findings": [
                {name: _text(value) for name, value in finding._asdict().items()}
                for finding in verdict.findings
            ],
        }
    )


def _dumped(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _text(path: str) -> str:
    """UTF-8 text; bytes of a path that are not UTF-8 become ``\\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _github(verdict: GuardVerdict) -> str:
    return "".join(
        f"::{_LEVELS[finding.grade]} file={_property(finding.where)},"
        f"title={_property(finding.rule)}::"
        f"{_escaped(f'{finding.what} {finding.why} Fix: {finding.fix}')}\n"
        for finding in verdict.findings
    )


def _escaped(text: str) -> str:
    # https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    return _text(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _sarif(verdict: GuardVerdict) -> str:
    from bundler.cli import sarif

    rules = {name: (text, _HELP) for name, text in _RULES.items()}
    results = [
        sarif.result(
            finding.rule,
            _LEVELS[finding.grade],
            _text(f"{finding.what} {finding.why} Fix: {finding.fix}"),
            finding.where.encode("utf-8", "surrogateescape"),
        )
        for finding in verdict.findings
    ]
    return _dumped(sarif.log("guard", rules, results))


_FORMATS: dict[str, Callable[[GuardVerdict], str]] = {
    "json": _json,
    "github": _github,
    "sarif": _sarif,
}
