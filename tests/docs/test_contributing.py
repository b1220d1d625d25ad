"""The map and the flows in CONTRIBUTING.md name modules and functions that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "bundler").rglob("*.py")))


def _section(title: str) -> str:
    return CONTRIBUTING.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


NAMED = sorted(set(re.findall(r"`([^`]+)`", _section("Five flows"))))


def test_the_flows_name_something() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize("name", NAMED)
def test_a_flow_names_what_exists(name: str) -> None:
    place = ROOT / "bundler" / name
    if "/" in name or name.endswith(".py"):
        assert place.exists() or place.with_name(f"{place.name}.py").exists()
    else:  # a call, a function, or a method of a class
        for word in re.findall(r"with \w+\.(\w+)|^(?:\w+\.)?(\w+)$", name):
            assert re.search(rf"\b(def|class) {''.join(word)}\b", SOURCES), word


def test_the_map_lists_every_folder_and_public_module() -> None:
    listed = _section("The map")
    inside = [path for path in (ROOT / "bundler").iterdir() if not path.name.startswith("__")]
    expected = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in inside
        if path.suffix == ".py" or (path.is_dir() and list(path.glob("*.py")))
    }
    assert {name for name in expected if name not in listed} == set()
