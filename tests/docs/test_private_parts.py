"""`docs/reference/private-parts.md` names existing files, and every private name in use."""

from __future__ import annotations

import re

import pytest

from tests.support.environments import ROOT

_PAGE = (ROOT / "docs/reference/private-parts.md").read_text(encoding="utf-8")
_ROWS = [line.split("|")[1:-1] for line in _PAGE.splitlines() if line.startswith("| ")][1:]
_SOURCES = {
    path: path.read_text(encoding="utf-8")
    for folder in ("bundler", "hooks")
    for path in (ROOT / folder).rglob("*.py")
}


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row[1].strip()[:40])
def test_every_place_and_test_that_is_named_is_there(row: list[str]) -> None:
    places = re.findall(r"`((?:hooks/)?[\w/]+(?:\.py|/))`", row[2])
    assert places
    for place in places:
        assert (ROOT / place).exists() or (ROOT / "bundler" / place).exists(), place
    for test in re.findall(r"`(tests/[\w/]+(?:\.py)?)`", row[4]):
        assert (ROOT / test).exists(), test


_PRIVATE = (
    re.compile(r"^\s*from ((?:dagster|urllib3|docker|pex|click)\._[\w.]+)", re.MULTILINE),
    re.compile(r'^    \("[\w.]+", "(\w+", "_\w+)", _', re.MULTILINE),
    re.compile(r"(?<!self)\.(_\w+)(?=.*# noqa: SLF001)"),  # ruff does not report those of self
)


def test_every_private_module_and_attribute_is_listed() -> None:
    texts = _SOURCES.values()
    found = {
        name.replace('", "', ".")
        for text in texts
        for form in _PRIVATE
        for name in form.findall(text)
    }
    assert len(found) > 3
    assert {name for name in found if name not in _PAGE} == set()
