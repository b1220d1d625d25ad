"""What of a baseline a plan compares: the state directories and the modules of its projects."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bundler.artifacts.diff import Difference, FileDifference, KeyDifference
from bundler.cli.plan import _markdown, _text
from bundler.errors import BadData, ConfigurationError
from bundler.listener import Listener
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.model import Component, Found
from bundler.refresh.removals import Removal, ShrunkState, refused
from bundler.refresh.run import check_selection
from bundler.refresh.secrets import Secrets
from bundler.state.definitions import (
    DefinitionChange,
    Definitions,
    DefinitionsDifference,
    FieldChange,
)
from bundler.state.jsondiff import JsonChange
from bundler.state.manifest import DirectoryRefresh, KeyRefresh, NonLocalKey
from bundler.state.statedir import StateDir
from bundler.workflows import loadcheck, plan, plan_file
from tests.support import forked
from tests.support.statedirs import publish
from tests.support.workdir import WorkDir

A, B = (f"{name}/defs/.local_defs_state" for name in "ab")


def test_versioned_keys_of_a_store_are_not_part_of_a_plan() -> None:
    found = Difference(
        "store", "new", tuple(KeyDifference(key, "removed", 1, 1) for key in "KV"), 0
    )
    versioned = Component("V", "VERSIONED_STATE_STORAGE", "kind")
    refreshed: Any = SimpleNamespace(found=[Found(Path(), A, (versioned,))])
    for kind, expected in (("store", ["K"]), ("oci", ["K", "V"])):
        before: Any = SimpleNamespace(kind=kind)
        assert [it.key for it in plan._of_projects(found, before, refreshed).keys] == expected


class _Projects:
    """Two projects, with the keys of their components, and what a plan of both would judge."""

    def __init__(self, folder: Path, options: dict[str, RefreshOptions], **keys: list[str]) -> None:
        self.folder = folder
        found = [
            SimpleNamespace(
                place=place,
                directory=folder / place,
                components=[SimpleNamespace(key=key, kinds=()) for key in keys[place[0]]],
            )
            for place in (A, B)
        ]
        bundles = [
            SimpleNamespace(place=place, root=self.state_dir("new", place, keys[place[0]]).path)
            for place in (A, B)
        ]
        refreshed: Any = SimpleNamespace(
            found=found, bundles=bundles, options={A: options["a"], B: options["b"]}
        )
        projects: Any = [
            SimpleNamespace(
                name=name,
                dagster=SimpleNamespace(defs=f"{name}.defs"),
                config=SimpleNamespace(refresh=options[name]),
            )
            for name in "ab"
        ]
        self.loader = plan._PlanLoader(projects, RefreshOptions(), refreshed, Listener())

    def state_dir(self, top: str, place: str, keys: list[str], entries: int = 10) -> StateDir:
        directory = StateDir(self.folder / top / place, place)
        publish(directory, {key: {"state": str([*range(entries)])} for key in keys})
        return directory

    def baseline(self, name: str, entries: int = 10, **keys: list[str]) -> dict[str, StateDir]:
        return {
            f"app/{place}": self.state_dir(name, place, keys[place[0]], entries)
            for place in (A, B)
            if place[0] in keys
        }


@pytest.mark.parametrize(
    ("own", "before", "allowed", "expected"),
    [
        ({"a": ["K"], "b": ["L"]}, {"a": ["K", "Gone"], "b": ["L"]}, (), []),
        ({"a": ["K"], "b": ["L"]}, {"a": ["K"], "b": ["L", "Gone"]}, (), ["Gone"]),
        ({"a": ["K"], "b": ["L"]}, {"a": ["K"], "b": ["L", "Gone"]}, ("Gone",), []),
        ({"a": ["K"], "b": ["L"]}, {"a": ["K"], "b": ["K", "L"]}, (), ["K"]),
        ({"a": ["K"], "b": ["L"]}, {"a": ["K", "X"], "b": ["L", "X"]}, (), ["X"]),
        ({"a": ["K"], "b": ["L"]}, {"a": ["K", "X"], "b": ["L", "X"]}, ("X",), []),
        ({"a": ["K"], "b": ["C[new]"]}, {"a": ["K"], "b": ["C[old]"]}, (), []),
        ({"a": ["K"], "b": ["L"]}, {"a": ["K"]}, (), []),
        ({"a": ["K"], "b": ["L"]}, {"b": ["L", "Gone"]}, (), ["Gone"]),
    ],
)
def test_keys_without_a_component_are_judged_by_the_options_of_their_project(
    own: dict[str, list[str]],
    before: dict[str, list[str]],
    allowed: tuple[str, ...],
    expected: list[str],
    tmp_path: Path,
) -> None:
    limited = RefreshOptions(defaults=KeyOptions(max_removed={"jobs": "0"}), allow_removed=allowed)
    projects = _Projects(tmp_path, {"a": RefreshOptions(), "b": limited}, **own)
    found = [*projects.loader._vanished(projects.baseline("old", **before))]
    assert [error.key for error in refused(found)] == expected


def test_each_projects_record_names_what_was_removed_from_its_own_states(tmp_path: Path) -> None:
    limited = RefreshOptions(defaults=KeyOptions(max_removed={"assets": "0"}), allow_removed=("*",))
    projects = _Projects(tmp_path, {"a": limited, "b": limited}, a=["K"], b=["K"])
    before, after = (
        {name: Definitions({}, {"K": {"assets": made}}) for name, made in made.items()}
        for made in ({"a": ["x"], "b": ["x", "y"]}, {"a": [], "b": ["x"]})
    )
    there = projects.baseline("old", a=["K"], b=["K", "Gone"])
    removed = [*projects.loader._removals(before, after), *projects.loader._vanished(there)]
    one, other = (
        plan_file._with_removed(DirectoryRefresh(place, (KeyRefresh("K"),)), removed)
        for place in (A, B)
    )
    assert (one.keys[0].removed, one.removed_keys) == (("x",), ())
    assert (other.keys[0].removed, other.removed_keys) == (("y",), ("Gone",))


@pytest.mark.parametrize(
    ("limits", "counted", "allowed", "expected"),
    [
        ({}, ["x"], False, ["K"]),
        ({}, ["x"], True, []),
        ({"assets": "0"}, ["x"], False, []),
        ({"jobs": "0"}, ["x"], False, ["K"]),
        ({"assets": "0"}, [], False, ["K"]),
    ],
)
def test_shrunk_states_are_judged_against_each_baseline(
    limits: dict[str, str],
    counted: list[str],
    allowed: bool,
    expected: list[str],
    tmp_path: Path,
) -> None:
    options = RefreshOptions(
        defaults=KeyOptions(max_removed=limits or None),
        allow_shrink=("K",) if allowed else (),
    )
    keys = {"a": ["K"], "b": ["L"]}
    projects = _Projects(tmp_path, {"a": options, "b": options}, **keys)
    before = {"a": Definitions({}, {"K": {"assets": counted}})}
    for name, entries, shown in (("staging", 10, []), ("prod", 1000, expected)):
        there = projects.baseline(name, entries, a=["K"])
        assert [it.key for it in projects.loader._shrunk(there, before)] == shown


def test_a_shrunk_state_is_shown_if_only_the_refresh_has_compared_it() -> None:
    nothing = plan.PlannedChange(plan.PlanBaseline("x", {}), Difference("", "", (), 0))
    shown = msgspec.structs.replace(nothing, shrunk=(ShrunkState("K", "small", ""),))
    errors = [BadData.of_key(key, "shrunk.") for key in "KL"]
    found = plan._with_others(nothing, [nothing, shown], errors)
    assert [(it.key, it.what) for it in found.shrunk] == [
        ("L", "L: shrunk. A refresh compares it with another baseline.")
    ]


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
    nothing: Any = SimpleNamespace(secrets=Secrets({}))
    monkeypatch.setattr(loadcheck, "configured_surroundings", lambda _: nothing)
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


def test_two_projects_of_one_name_are_not_planned_together(tmp_path: Path) -> None:
    """The definitions of one would replace those of the other."""
    roots = [tmp_path / name / "orders" for name in "ab"]
    for root in roots:
        root.mkdir(parents=True)
        (root / "pyproject.toml").write_text(
            '[project]\nname = "orders"\n[tool.dg]\ndirectory_type = "project"\n'
            '[tool.dg.project]\nroot_module = "orders"\n'
        )
    projects = [open_project(root) for root in roots]
    with pytest.raises(ConfigurationError, match=r"a/orders and .*b/orders are both named orders"):
        plan.make(projects, RefreshOptions(), (), tmp_path, Listener())
    plan._refuse_one_name([projects[0], projects[0]])


def _write_project(wd: WorkDir, path: str, name: str) -> None:
    """Whose source is the same in each."""
    command = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write('[1]')"]
    source = f'key = "A"\ncommand = {json.dumps([*command, "{state_path}"])}\npath = "state"\n'
    wd.write(path, f"{name}[[tool.state-bundler.source]]\n{source}")


def _run(wd: WorkDir, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.said("state-bundler", *arguments, cwd=wd.path, env={**os.environ, **wd.env})


@pytest.mark.slow
def test_a_plan_does_not_fit_another_project_with_the_same_keys_and_path(wd: WorkDir) -> None:
    for name in ("orders", "stock"):
        _write_project(wd, f"{name}/pyproject.toml", f'[project]\nname = "{name}"\n')
    assert _run(wd, "plan", "--project", "orders", "--out", "plan.bin").returncode == 1
    build = ("build", "oci", "--no-guard", "--plan", "plan.bin", "-o", "image", "--project")
    other = _run(wd, *build, "stock")
    assert other.returncode == 76
    assert "plan.bin is a plan for orders, not for stock." in other.stderr
    assert not (wd.path / "image").exists()
    assert _run(wd, *build, "orders").returncode == 0


@pytest.mark.slow
def test_a_plan_is_for_every_clone_of_a_project_without_a_name(wd: WorkDir) -> None:
    _write_project(wd, "pyproject.toml", "")
    assert _run(wd, "plan", "--out", "plan.bin").returncode == 1
    clone = shutil.copytree(wd.path, wd.path.with_name("clone"))
    build = ("build", "oci", "--no-guard", "--plan", "plan.bin", "-o", "image", "--project")
    made = _run(wd, *build, str(clone))
    assert made.returncode == 0, made.stderr


def test_names_from_an_api_are_only_text(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "<img src=x> @team [a](b) ``` x\n### Compared with `prod`"
    members = (JsonChange("added", "a", hostile),)
    key = KeyDifference(
        hostile, "changed", 1, 2, (FileDifference("state", "changed", 1, 2, members),)
    )
    change = plan.PlannedChange(
        plan.PlanBaseline("x", {}),
        Difference("", "", (key,), 0),
        DefinitionsDifference(
            (
                DefinitionChange("assets", hostile, "added"),
                DefinitionChange(
                    "assets", "a", "changed", (FieldChange("description", "", hostile),)
                ),
            )
        ),
        (Removal("K", "assets", (hostile,), 1, "0"),),
    )
    others = (NonLocalKey(hostile, "VERSIONED_STATE_STORAGE"),)
    made = plan.Plan({}, (change,), not_refreshed=others)
    _text(made, 100)
    printed = capsys.readouterr().out
    assert "Compared with `prod`" in printed
    assert not any(line.lstrip().startswith("#") for line in printed.split("\n"))
    lines = [*_markdown(made, 100)]
    assert sum(line.startswith("### ") for line in "\n".join(lines).split("\n")) == 1
    approval = next(line for line in lines if line.startswith("**Needs approval:**"))
    assert re.fullmatch(r"\*\*Needs approval:\*\* `[^`\n]+`", approval)
    fence = re.compile("^````diff$(.*?)^````$", re.DOTALL | re.MULTILINE)
    fenced = "".join(fence.findall("\n".join(lines)))
    assert "`" not in fenced
    assert fenced.count("@team") == 3
    outside = re.sub("`[^`\n]+`|<code>.*?</code>", "", fence.sub("", "\n".join(lines)))
    assert not any(it in outside for it in ("<img", "@team", "[a]", "`"))
