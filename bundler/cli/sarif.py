"""A verdict as SARIF 2.1.0, for code scanning.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/
"""

from __future__ import annotations

from urllib.parse import quote

from bundler.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def log(
    command: str, rules: Mapping[str, tuple[str, str]], results: Sequence[Any]
) -> dict[str, Any]:
    """The log. rules: what is wrong, and what to do, by name.

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
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "utf16CodeUnits"}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def result(
    rule: str, level: str, message: str, file: bytes, *, line: int = 1, name: str = ""
) -> dict[str, Any]:
    """A finding. file: relative to the top of the repository. name: if it is in no file."""
    place: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(file), "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": line},
        }
    }
    if name:
        place["logicalLocations"] = [{"name": name, "kind": "module"}]
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": message},
        "locations": [place],
    }
