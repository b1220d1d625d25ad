"""Removals need approval: ``max-removed`` with a real Dagster. About a minute."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.state.manifest import DirectoryRefresh
from bundler.state.statedir import StateDir
from tests.support.planned import feed, make, python

pytestmark = pytest.mark.usefixtures("loads_once")
_STATES = "src/planned/defs/.local_defs_state"


def _of(*names: str, **more: Any) -> Mapping[str, Any]:
    return {"assets": {name: {"group": "g"} for name in names}, **more}


class _Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = make(folder)

    def configure(self, text: str) -> None:
        with (self.root / "pyproject.toml").open("a") as stream:
            stream.write(f"\n[tool.state-bundler]\n{text}\n")

    def refresh(self, state: Mapping[str, Any], *arguments: str) -> int:
        feed(self.folder, state)
        argv = ["refresh", "--project", str(self.root), "--python", str(python()), *arguments]
        return run(cli, argv)

    def published(self) -> set[str]:
        state = self.root / _STATES / "Feed__main__" / "state"
        return set(json.loads(state.read_text())["assets"])

    def recorded(self) -> DirectoryRefresh:
        published = StateDir(self.root / _STATES, "").read()
        assert published is not None
        assert published.record is not None
        return published.record.refresh[0]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Project:
    monkeypatch.setenv("FEED", str(tmp_path / "feed"))
    return _Project(tmp_path)


TEN = tuple("abcdefghij")


def test_more_than_the_share_is_refused_until_it_is_allowed(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.configure('max-removed = { assets = "20%", jobs = 0 }')
    assert project.refresh(_of(*TEN, jobs={"nightly": ["a"]})) == 0
    capsys.readouterr()
    assert project.refresh(_of(*TEN[3:])) == 65
    said = capsys.readouterr().err
    assert "Feed[main]: 3 of 10 assets would be removed, more than max-removed = 20%" in said
    assert "allows: a, b, c." in said
    assert "1 of 1 jobs would be removed" in said
    assert "--allow-removed 'Feed[main]'" in said
    assert project.published() == set(TEN)
    assert project.refresh(_of(*TEN[3:]), "--allow-removed", "Feed[*") == 0
    assert project.published() == set(TEN[3:])
    assert project.recorded().keys[0].removed == ("a", "b", "c", "nightly")
    assert "--allow-removed lets 4 definitions be removed" in capsys.readouterr().err


def test_what_the_state_makes_counts_and_not_its_bytes(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    big = {name: {"tags": {f"tag-{n}": "x" for n in range(20)}} for name in TEN}
    assert project.refresh({"assets": big}) == 0
    assert project.refresh(_of(*TEN)) == 65  # the shrink check
    assert "has shrunk" in capsys.readouterr().err
    project.configure("max-removed = 0")
    assert project.refresh(_of(*TEN)) == 0
    module = project.root / "src/planned/feed.py"
    module.write_text(module.read_text().replace('state["assets"].items()', "1 / 0"))
    capsys.readouterr()
    assert project.refresh(_of("a")) == 65
    said = capsys.readouterr().err
    assert "max-removed was not checked: planned does not load with the states of the" in said
    assert "has shrunk" in said


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ("{ jobs = 0 }", ""),
        ('"20%"', "Feed.build_defs = lambda self, context: dg.Definitions()"),
    ],
)
def test_assets_that_are_not_limited_or_not_counted_keep_the_shrink_check(
    limits: str, code: str, project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.configure(f"max-removed = {limits}")
    with (project.root / "src/planned/feed.py").open("a") as stream:
        stream.write(f"\n\n{code}\n")
    assert project.refresh(_of(*TEN)) == 0
    capsys.readouterr()
    assert project.refresh(_of("a")) == 65
    assert "Feed[main]: the state has shrunk from 10 to 1 entries." in capsys.readouterr().err
    plan = ["plan", "--project", str(project.root), "--python", str(python()), "--format", "json"]
    assert run(cli, plan) == 1
    (baseline,) = json.loads(capsys.readouterr().out)["baselines"]
    assert [line.partition(".")[0] for line in baseline["refused"]] == [
        "Feed[main]: the state has shrunk from 10 to 1 entries"
    ]
    assert project.refresh(_of("a"), "--allow-shrink", "Feed[main]") == 0
    assert project.published() == {"a"}


def test_a_state_that_does_not_load_is_refused(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.configure("max-removed = 0")
    assert project.refresh(_of(*TEN)) == 0
    capsys.readouterr()
    assert project.refresh(_of(*TEN, broken=True)) == 65
    said = capsys.readouterr().err
    assert "does not load with the new states: ValueError: the feed cannot be used" in said


def test_a_key_without_a_component_is_removed_only_with_approval(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.configure('max-removed = "20%"')
    other = project.root / "src/planned/defs/more"
    other.mkdir()
    (other / "defs.yaml").write_text("type: planned.feed.Feed\nattributes:\n  name: more\n")
    feed(project.folder, _of("z"), "more")
    assert project.refresh(_of(*TEN)) == 0
    shutil.rmtree(other)
    capsys.readouterr()
    assert project.refresh(_of(*TEN)) == 65
    said = capsys.readouterr().err
    assert "Feed[more]: no component has this key any more, so everything" in said
    assert (project.root / _STATES / "Feed__more__" / "state").exists()
    plan = ["plan", "--project", str(project.root), "--python", str(python()), "--format", "json"]
    assert run(cli, plan) == 1
    (baseline,) = json.loads(capsys.readouterr().out)["baselines"]
    assert [line.partition(":")[0] for line in baseline["refused"]] == ["Feed[more]"]
    assert project.refresh(_of(*TEN), "--allow-removed", "Feed[more]") == 0
    assert not (project.root / _STATES / "Feed__more__").exists()
    assert project.recorded().removed_keys == ("Feed[more]",)


def test_a_key_with_another_name_is_compared_with_what_it_was(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that a key is made of names an account with nothing in it."""
    project.configure('max-removed = "20%"')
    assert project.refresh(_of(*TEN)) == 0
    declared = project.root / "src/planned/defs/feed/defs.yaml"
    declared.write_text(declared.read_text().replace("main", "other"))
    feed(project.folder, _of("a"), "other")
    capsys.readouterr()
    assert project.refresh(_of(*TEN)) == 65
    assert "Feed[other]: 9 of 10 assets would be removed" in capsys.readouterr().err
    feed(project.folder, _of(*TEN), "other")
    assert project.refresh(_of(*TEN)) == 0


def test_an_asset_that_others_depend_on_is_removed_as_well(
    project: _Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dagster makes up an asset for every dependency: that does not define it."""
    project.configure("max-removed = 0")
    module = project.root / "src/planned/defs/report.py"
    module.write_text(
        "import dagster as dg\n\n@dg.asset(deps=[*'abcdefghij'])\ndef report(): ...\n"
    )
    assert project.refresh(_of(*TEN)) == 0
    capsys.readouterr()
    assert project.refresh(_of(*TEN[1:])) == 65
    assert "1 of 10 assets would be removed, more than max-removed = 0 allows: a." in (
        capsys.readouterr().err
    )
