"""A table that `doctor` prints as a fix, put into pyproject.toml as a user would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit


def paste_table(fix: str, pyproject: Path) -> None:
    """Sets what the table says. Nothing that a list has may be lost by that."""
    said, _, block = fix.partition("\n")
    assert said == "Set this in pyproject.toml:"
    document = tomlkit.parse(pyproject.read_text())
    _merge(document, tomlkit.parse(block))
    pyproject.write_text(tomlkit.dumps(document))


def _merge(into: Any, block: Mapping[str, Any]) -> None:
    for name, value in block.items():
        if isinstance(value, Mapping) and name in into:
            _merge(into[name], value)
        else:
            if isinstance(value, list):
                assert [item for item in into.get(name, []) if item not in value] == []
            into[name] = value
