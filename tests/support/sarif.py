"""What code scanning requires of a SARIF run.

https://docs.github.com/code-security/reference/code-scanning/sarif-files/sarif-support-for-code-scanning
"""

from __future__ import annotations

import re
from typing import Any


def check_sarif(run: dict[str, Any]) -> None:
    """Each rule is described and each result is in a file. There is no link that leads nowhere."""
    for rule in run["tool"]["driver"]["rules"]:
        for name in ("shortDescription", "fullDescription", "help"):
            assert rule[name]["text"], rule
    for result in run["results"]:
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert re.fullmatch(r"[^/][\w./%~-]*", place["artifactLocation"]["uri"])
        assert place["region"]["startLine"] >= 1
    assert "://" not in str(run)
