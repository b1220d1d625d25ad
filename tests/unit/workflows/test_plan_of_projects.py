"""What of a baseline a plan compares: the state directories and the modules of its projects."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bundler.artifacts.diff import diff
from bundler.errors import ConfigurationError
from bundler.project.options import RefreshOptions
from bundler.refresh.run import check_selection
from bundler.state.definitions import Definitions
from bundler.state.directory import DirectoryArtifact, PublishedDirectories
from bundler.state.statedir import StateDir
from bundler.workflows import loadcheck, plan
from tests.support.statedirs import publish

A, B = (f"{name}/defs/.local_defs_state" for name in "ab")


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (["K"], ["K"], []),
        (["K"], ["Other"], []),
        (["K", "Gone"], ["K"], [("Gone", "removed")]),
        (["K", "Gone"], ["K", "Gone"], [(f"Gone in app/{A}", "removed")]),
        (["K"], None, []),
    ],
)
def test_other_state_directories_of_a_baseline_are_ignored(
    own: list[str], others: list[str] | None, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    image = tmp_path / "image/app"
    publish(StateDir(image / A, A), {key: {"state": "1"} for key in own})
    if others is None:  # Dagster alone has filled it
        (image / B / "Feed__x").mkdir(parents=True)
        (image / B / "Feed__x/state").write_text("1")
    else:
        publish(StateDir(image / B, B), {key: {"state": "1"} for key in others})
    new = StateDir(tmp_path / "new" / A, A)
    publish(new, {"K": {"state": "1"}})
    refreshed: Any = SimpleNamespace(found=[SimpleNamespace(place=A, components=())])
    with DirectoryArtifact(tmp_path / "image") as before:
        after = PublishedDirectories("new", {A: new.path})
        found = plan._of_projects(diff(before, after), before, refreshed)
    assert [(key.key, key.kind) for key in found.keys] == expected


def test_a_finished_artifact_is_compared_by_what_the_plan_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    same = Definitions({})

    def describe(_run: Any, request: Any, *_: Any) -> Definitions:
        asked.append(request.target)
        return same

    monkeypatch.setattr(loadcheck, "describe", describe)
    monkeypatch.setattr(loadcheck, "target_of", lambda project: f"{project.name}.definitions")
    projects: Any = [SimpleNamespace(name="shop"), SimpleNamespace(name="without_dagster")]
    run: Any = None
    for targets in (("shop.definitions",), ("shop.other",), ("shop.other", "shop.third")):
        demanded = loadcheck.LoadCheck(targets)
        loadcheck.compare_with_plan(run, demanded, projects, {"shop": same}, "app.pex")
    assert asked == ["shop.definitions"] * 3


@pytest.mark.parametrize(
    ("pattern", "keys", "one_of_all", "accepted"),
    [
        ("Fivetran[x]", ["Fivetran[x]"], False, True),
        ("Fivetran[x]", ["Other"], False, False),
        ("Fivetran[x]", ["Other"], True, True),
        ("Fivetran*", ["Other"], False, False),
        ("Fivetran*", [], False, True),
        ("*", [], False, True),
        ("*", ["Other"], False, True),
    ],
)
@pytest.mark.parametrize("option", ["allow_shrink", "allow_empty"])
def test_a_pattern_of_all_projects_may_match_no_key_of_one(
    option: str, pattern: str, keys: list[str], one_of_all: bool, accepted: bool
) -> None:
    options = RefreshOptions(**{option: (pattern,)}, is_one_of_all=one_of_all)
    directories: Any = [SimpleNamespace(components=dict.fromkeys(keys))] if keys else []
    if accepted:
        check_selection(options, directories)
    else:
        with pytest.raises(ConfigurationError, match="matches"):
            check_selection(options, directories)
