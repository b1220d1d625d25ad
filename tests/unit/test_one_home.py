"""Rules that have one home: a key in a message, a time as text, where a project's files are."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).parents[2] / "bundler"
_SOURCES = {
    path.relative_to(_PACKAGE).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(_PACKAGE.rglob("*.py"))
    if path.parent.name != "worker"  # runs without the package
}
# Only a terminal shows the time of day.
_HOMES = {
    r'/ "pyproject\.toml"': {"project/config.py"},
    r'/ "src"': {"project/layout.py"},
    r"\b(?:strftime|strptime|fromisoformat|isoformat)\(": {"system/times.py", "cli/status.py"},
    r"def sanitize_key\b": {"verify_at_start.py"},
}


@pytest.mark.parametrize("rule", _HOMES)
def test_a_rule_has_one_home(rule: str) -> None:
    assert {name for name, source in _SOURCES.items() if re.search(rule, source)} <= _HOMES[rule]


def _prefixed(source: str) -> list[int]:
    """The lines of calls whose message begins with ``{key}: ``, which `of_key` adds."""
    if not re.search(r"key\s*\}", source):  # to parse all takes half a second
        return []
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func)[:1].isupper()
        and node.args
        and re.match(r"f['\"]\{(\w+\.)*key\}: ", ast.unparse(node.args[0]))
    ]


@pytest.mark.slow
def test_the_key_in_a_message_is_added_in_one_place() -> None:
    assert not [f"{name}:{line}" for name, text in _SOURCES.items() for line in _prefixed(text)]
    assert _prefixed('raise BadData(f"{self.key}: empty.", key=self.key)') == [1]


def test_a_class_name_has_one_meaning() -> None:
    defined = Counter(
        name
        for path in _PACKAGE.rglob("*.py")
        for name in re.findall(
            r"^\s*class _?(\w+)[:(]", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    assert {name for name, count in defined.items() if count > 1} == set()
