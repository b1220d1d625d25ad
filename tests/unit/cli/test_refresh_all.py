"""`refresh --all` of projects that have the same key at the same place."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import forked

_PROJECT = """\
[[tool.state-bundler.source]]
key = "Catalogue"
command = ["cp", "../{name}.json", "{{state_path}}"]
path = "src/shop/state"
"""


def test_each_project_has_its_own_changes_and_times(tmp_path: Path) -> None:
    def refresh(*arguments: str) -> str:
        return forked.said("state-bundler", "refresh", *arguments, cwd=tmp_path).stdout

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(_PROJECT.format(name=name))
        (tmp_path / f"{name}.json").write_text("[1]")
    refresh("--all")
    first = json.loads(refresh("--all", "--format", "json"))["keys"]
    (tmp_path / "b.json").write_text("[1, 2]")
    shown = refresh("--all", "--format", "json")
    keys = json.loads(shown)["keys"]
    assert [key["changed"] for key in keys] == [False, True]
    assert keys[0]["fetched"] == first[0]["fetched"]
    (tmp_path / "a.json").write_text("[1, 2]")
    *_, one, other = refresh("--all").splitlines()
    assert one.split()[-2:] == ["changed", "a/src/shop/state"]
    assert other.split()[-2:] == ["unchanged", "b/src/shop/state"]
