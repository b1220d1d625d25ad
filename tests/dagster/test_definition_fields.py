"""No change of a definition goes unnoticed: each field alone, with a real Dagster. About 60 s."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bundler.project.projects import open_project
from bundler.refresh.definitions import describe_with
from bundler.state.definitions import Definitions, compare
from tests.support.planned import KEY, make, python

_FOLLOWS = ("sensors", "default_automation_condition_sensor")  # Dagster's own: all other assets
_LOGGERS = ("settings", "loggers")  # only the configuration of them
_UNCHANGED = {("resources", "files"), ("resources", "other_files"), ("resources", "store")}


def _state(folder: Path, *, new: bool) -> Path:
    folder.mkdir()
    (folder / "state").write_text(json.dumps({"new": new}))
    return folder


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> tuple[Definitions, ...]:
    folder = tmp_path_factory.mktemp("fields")
    root = make(folder)
    shutil.copy(root / "every_field.py", root / "src/planned/feed.py")
    old, again, new = (
        {KEY: _state(folder / name, new=name == "new")} for name in ("old", "again", "new")
    )
    return describe_with(open_project(root, python=python()), [old, again, new])


def test_the_same_state_makes_the_same_definitions(described: tuple[Definitions, ...]) -> None:
    old, again, _ = described
    assert old.error is None
    assert compare(old, again).changes == ()


def test_each_field_alone_is_a_change(described: tuple[Definitions, ...]) -> None:
    old, _, new = described
    assert new.error is None
    found = {(it.kind, it.name): it for it in compare(old, new).changes}
    names = {
        (kind, name) for kind, made in old.definitions.items() for name in made
    } - _UNCHANGED  # fmt: skip
    assert sorted(names - found.keys()) == []
    for (kind, name), change in found.items():
        if change.change == "changed" and (kind, name) not in (_FOLLOWS, _LOGGERS):
            wanted = name.rpartition(":")[2].replace("_", " ")
            fields = {field.name for field in change.fields}
            assert any(wanted.startswith(field) for field in fields), (kind, name, fields)


def test_a_value_that_may_be_secret_is_not_said(described: tuple[Definitions, ...]) -> None:
    old, _, new = described
    for one in (old, new):
        assert "secret-value" not in str(one)
        assert "configuration" not in str(one.portable().definitions["resources"]["store"])
    assert compare(old.portable(), new.portable()).counted("resources", "changed") == 3


# What Dagster shows of a definition, and the field that has it here; or why none has.
_SHOWN = {
    "AssetNodeSnap": {
        "asset_key": "name", "parent_edges": "dependencies, partition mappings",
        "execution_type": "type", "is_source": "type", "is_observable": "type",
        "is_virtual": "type", "pools": "pools", "compute_kind": "kinds", "op_name": "op",
        "op_names": "op", "node_definition_name": "op", "graph_name": "op",
        "output_name": "follows from the key", "code_version": "code version",
        "description": "description", "job_names": "assets of the jobs", "partitions":
        "partitions", "metadata": "metadata", "tags": "tags, kinds", "group_name": "group",
        "legacy_freshness_policy": "freshness", "freshness_policy": "freshness",
        "execution_set_identifier": "made with", "required_top_level_resources": "resources",
        "auto_materialize_policy": "automation", "automation_condition_snapshot": "automation",
        "backfill_policy": "backfill", "auto_observe_interval_minutes": "observed every",
        "owners": "owners",
    },
    "AssetCheckNodeSnap": {
        "name": "name", "asset_key": "name", "description": "description",
        "execution_set_identifier": "made with", "job_names": "asset checks of the jobs",
        "blocking": "blocking", "additional_asset_keys": "dependencies",
        "automation_condition": "automation", "automation_condition_snapshot": "automation",
        "partitions_def_snapshot": "partitions",
    },
    "ScheduleSnap": {
        "name": "name", "cron_schedule": "cron", "job_name": "job", "op_selection": "ops",
        "mode": "always the same", "environment_vars": "configuration", "partition_set_name":
        "always None", "execution_timezone": "timezone", "description": "description",
        "default_status": "status", "asset_selection": "assets", "tags": "tags",
        "metadata": "metadata", "owners": "owners",
    },
    "SensorSnap": {
        "name": "name", "job_name": "jobs", "op_selection": "ops", "mode": "always None",
        "min_interval": "interval", "description": "description", "target_dict": "jobs",
        "metadata": "metadata, watched assets", "default_status": "status", "sensor_type": "type",
        "asset_selection": "assets", "tags": "tags", "run_tags": "run tags", "owners": "owners",
    },
    "ResourceSnap": {
        "name": "name", "resource_snapshot": "description", "configured_values": "configuration",
        "config_field_snaps": "type", "config_schema_snap": "type", "nested_resources":
        "resources", "parent_resources": "resources", "resource_type": "type", "is_top_level":
        "always true", "asset_keys_using": "resources of the assets", "job_ops_using":
        "resources of the jobs", "dagster_maintained": "type",
        "schedules_using": "resources of the schedules", "sensors_using":
        "resources of the sensors",
    },
    "JobRefSnap": {
        "name": "name", "snapshot_id": "assets, ops, wiring, op definitions, tags, metadata",
        "active_presets": "configuration", "parent_snapshot_id": "never for a whole job",
        "preview_tags": "tags, run tags", "owners": "owners", "automation_condition": "automation",
    },
}  # fmt: skip


def test_what_dagster_shows_has_a_field() -> None:
    """A version of Dagster that shows more makes this fail: describe it then."""
    program = (
        "import json, sys; from dagster._core.remote_representation import external_data as e\n"
        "print(json.dumps({n: list(getattr(e, n).__annotations__) for n in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [python(), "-c", program, *_SHOWN], capture_output=True, text=True, check=True
    )
    shown = json.loads(done.stdout)
    assert {name: sorted(fields) for name, fields in shown.items()} == {
        name: sorted(fields) for name, fields in _SHOWN.items()
    }
