"""Findings about a repository in the formats that CI systems read.

GitHub: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
SARIF 2.1.0, for code scanning: https://docs.oasis-open.org/sarif/sarif/v2.1.0/
"""

from __future__ import annotations

import os

from bundler.cli.console import as_json, hidden
from bundler.system.fast_tuple import NamedTuple
from bundler.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


class LocatedFinding(NamedTuple):
    """level: ``error`` or ``warning``. file: relative to the top of the repository. line: None for
    the file as a whole. name: what it is about, if that is in no file. title: for GitHub."""

    rule: str
    level: str
    text: str
    file: str
    title: str
    line: int | None = None
    name: str = ""


def github(found: Iterable[LocatedFinding]) -> str:
    """A workflow command for each finding, which annotates the file."""
    return "".join(
        f"::{it.level} file={escaped_property(it.file)},"
        + (f"line={it.line}," if it.line else "")
        + f"title={escaped_property(it.title)}::"
        + escaped(hidden(f"{it.name}: {it.text}" if it.name else it.text))
        + "\n"
        for it in found
    )


def escaped(text: str) -> str:
    """The data of a workflow command."""
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escaped_property(text: str) -> str:
    """A property of a workflow command."""
    return escaped(text).replace(":", "%3A").replace(",", "%2C")


def printable(path: str) -> str:
    """UTF-8 text; bytes of a path that are not UTF-8 become ``\\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def sarif(
    command: str, rules: Mapping[str, tuple[str, str]], found: Iterable[LocatedFinding]
) -> str:
    """A SARIF log. rules: what is wrong, and what to do, by name.

    It has the members that code scanning requires. `helpUri` is optional, and left out: a link must
    lead to the documentation of the installed version, which only its repository has.
    """
    driver = {
        "name": f"state-bundler {command}",
        "version": __version__,
        "rules": [
            {
                "id": name,
                "shortDescription": {"text": text},
                "fullDescription": {"text": text},
                "help": {"text": f"{text} {fix}"},
            }
            for name, (text, fix) in rules.items()
        ],
    }
    results = [_result(finding) for finding in found]
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "utf16CodeUnits"}
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return as_json(log, indent=2, ensure_ascii=False) + "\n"


def _result(finding: LocatedFinding) -> dict[str, Any]:
    from urllib.parse import quote

    place: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(os.fsencode(finding.file)), "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": finding.line or 1},
        }
    }
    if finding.name:
        place["logicalLocations"] = [{"name": finding.name, "kind": "module"}]
    return {
        "ruleId": finding.rule,
        "level": finding.level,
        "message": {"text": printable(finding.text)},
        "locations": [place],
    }
