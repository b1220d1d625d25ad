"""Describing a code location with given states, and comparing: with a real Dagster. About 40 s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bundler.project.projects import open_project
from bundler.refresh.definitions import describe_with
from bundler.state.definitions import Definitions, DefinitionsDifference, compare
from tests.support.environments import python_of
from tests.support.planned import AFTER, BEFORE, KEY, key_directory, make, python


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Definitions, Definitions]:
    folder = tmp_path_factory.mktemp("planned")
    project = open_project(make(folder), python=python())
    before, after = (
        key_directory(folder / name, state) for name, state in (("old", BEFORE), ("new", AFTER))
    )
    one, other = describe_with(project, [{KEY: before}, {KEY: after}])
    assert (before / "state").read_text() == json.dumps(BEFORE)
    assert not (project.root / "src/planned/defs/.local_defs_state").exists()
    return one, other


def counts(described: Definitions) -> dict[str, int]:
    return {kind: len(found) for kind, found in described.definitions.items() if found}


def test_every_kind_of_definition_is_described(loaded: tuple[Definitions, Definitions]) -> None:
    before, _ = loaded
    assert before.error is None
    assert counts(before) == {
        "assets": 4, "asset checks": 2, "jobs": 2, "schedules": 2, "sensors": 1, "resources": 1,
    }  # fmt: skip
    assert before.assets["orders"] == {
        "dependencies": [],
        "group": "sales",
        "owners": ["team:shop"],
        "automation": before.assets["orders"]["automation"],
        "code version": "1",
        "partitions": "'a', 'b'",
        "kinds": ["table"],
        "tags": {"tier": "gold"},
        "type": "materializable",
        "op": "orders",
        "io manager": "io_manager",
        "resources": ["io_manager"],
    }
    assert before.assets["orders"]["automation"].startswith("eager #")
    assert before.definitions["resources"]["warehouse"]["type"] == "planned.feed.Warehouse"
    assert "canary" not in msgspec.json.encode(before).decode()
    assert before.states == {KEY: True}
    made = before.keys[KEY]
    assert sorted(made["assets"]) == ["customers", "orders", "returns", "revenue"]
    assert sorted(made["asset checks"]) == ["customers:fresh", "orders:fresh"]
    assert sorted(made["jobs"]) == ["nightly", "weekly"]


def _names(found: DefinitionsDifference, change: str) -> set[tuple[str, str]]:
    return {(item.kind, item.name) for item in found.changes if item.change == change}


def test_what_appears_vanishes_and_changes(loaded: tuple[Definitions, Definitions]) -> None:
    found = compare(*loaded)
    assert _names(found, "added") == {
        ("assets", "visits"), ("asset checks", "orders:complete"), ("jobs", "hourly"),
        ("schedules", "hourly_schedule"), ("sensors", "more"), ("resources", "lake"),
    }  # fmt: skip
    assert _names(found, "removed") == {
        ("assets", "returns"), ("asset checks", "customers:fresh"), ("jobs", "weekly"),
        ("schedules", "weekly_schedule"), ("resources", "warehouse"),
    }  # fmt: skip
    changed = {
        (item.kind, item.name): {field.name: field for field in item.fields}
        for item in found.changes
        if item.change == "changed"
    }
    assert set(changed) == {
        ("assets", "orders"), ("assets", "revenue"), ("jobs", "nightly"),
        ("schedules", "nightly_schedule"), ("sensors", "automation"),
    }  # fmt: skip
    orders = changed["assets", "orders"]
    assert set(orders) == {
        "group", "owners", "automation", "code version", "partitions", "kinds", "tags",
    }  # fmt: skip
    assert orders["tags"].added == ("tier=silver",)
    assert orders["tags"].removed == ("tier=gold",)
    deps = changed["assets", "revenue"]["dependencies"]
    assert (deps.added, deps.removed) == (("visits",), ("customers",))
    assert changed["jobs", "nightly"]["assets"].added == ("orders",)
    assert changed["schedules", "nightly_schedule"]["cron"].after == "0 2 * * *"
    assert found.unchanged == 2  # customers, and the check of orders


def test_the_same_state_is_not_a_change(loaded: tuple[Definitions, Definitions]) -> None:
    before, after = loaded
    assert compare(before, before).changes == ()
    assert compare(after, after).unchanged == sum(counts(after).values())


def test_without_a_state_and_with_a_broken_one(tmp_path: Path) -> None:
    project = open_project(make(tmp_path), python=python())
    broken: dict[str, Any] = {"broken": True}
    nothing, failed = describe_with(
        project, [{}, {KEY: key_directory(tmp_path / "broken", broken)}]
    )
    assert nothing.error is None
    assert counts(nothing) == {}
    assert nothing.states == {KEY: False}
    assert failed.error is not None
    assert "the feed cannot be used" in failed.error


def test_a_load_has_no_network(tmp_path: Path) -> None:
    root = make(tmp_path)
    module = root / "src/planned/definitions.py"
    module.write_text(
        "import socket\nsocket.create_connection(('127.0.0.1', 9))\n" + module.read_text()
    )
    (found,) = describe_with(open_project(root, python=python()), [{}])
    assert found.error == "ConnectionRefusedError: definitions are loaded without network"


def test_automation_of_another_dagster_is_compared_by_its_label(
    loaded: tuple[Definitions, Definitions], tmp_path: Path
) -> None:
    project = open_project(make(tmp_path), python=python_of("dagster-oldest"))
    (oldest,) = describe_with(project, [{KEY: key_directory(tmp_path / "old", BEFORE)}])
    assert oldest.version == "1.12.0"
    assert oldest.assets["orders"]["automation"] != loaded[0].assets["orders"]["automation"]
    found = compare(oldest, loaded[0])
    assert [item.kind for item in found.changes if item.kind in ("assets", "schedules")] == []
