"""`bundler.dagster_health` in a real Dagster instance: the checks run, and a load stays cheap."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bundler.state.manifest import DirectoryRefresh, KeyRefresh
from bundler.state.statedir import StateDir
from bundler.system.times import now
from tests.support import warm
from tests.support.environments import ROOT, python_of
from tests.support.planned import KEY, make
from tests.support.statedirs import fill

_PLACE = "planned/defs/.local_defs_state"
_CHECK = """
import json, sys
from pathlib import Path
import dagster as dg
import bundler.verify_at_start
from bundler.dagster_health import state_health
health = state_health(Path(sys.argv[1]), **json.loads(sys.argv[2]))
imported = sorted(name for name in sys.modules if name.startswith("bundler."))
found = {}
with dg.DagsterInstance.ephemeral() as instance:
    job = health.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, raise_on_error=True)
    for it in result.get_asset_check_evaluations():
        values = {name: value.value for name, value in it.metadata.items()}
        found[f"{it.asset_key.path[-1]} {it.check_name}"] = [it.passed, values]
    keys = [key.to_user_string() for key in health.resolve_all_asset_keys()]
print("FOUND", json.dumps({"checks": found, "keys": keys, "imported": imported}))
"""


def _publish(directory: StateDir, confirmed: str | None, **states: str) -> Path:
    keys = tuple(KeyRefresh(key, confirmed=confirmed) for key in states)
    with directory.staging() as staging:
        written = fill(staging, {key: {"state": text} for key, text in states.items()})
        staging.publish(written, (), DirectoryRefresh(directory.place, keys))
    return directory.path


def _run(program: str, *arguments: str, **environment: str) -> Any:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "PYTHON"))}
    done = subprocess.run(
        [warm.program(python_of("store")), "-c", program, *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), "DAGSTER_DISABLE_TELEMETRY": "true", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    return json.loads(line.removeprefix("FOUND "))


def _checked(directory: Path, **options: str) -> Any:
    return _run(_CHECK, str(directory), json.dumps(options))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    states = {"Feed[main]": '{"assets": ["a", "b"]}', "Other": '["x"]'}
    _publish(StateDir(tmp_path / _PLACE, _PLACE), now(), **states)
    return tmp_path


def test_a_good_state_passes_every_check(project: Path) -> None:
    other = project.parent / "baseline"
    _publish(StateDir(other / _PLACE, _PLACE), now(), **{"Feed[main]": '{"assets": ["a", "b"]}'})
    found = _checked(project, max_age="24h", baseline=str(other))
    assert found["keys"] == ["embedded_state/Feed_main_0", "embedded_state/Other_1"]
    checks = found["checks"]
    assert {name: passed for name, (passed, _) in checks.items()} == {
        "Feed_main_0 verified": True, "Feed_main_0 fresh": True, "Feed_main_0 current": True,
        "Other_1 verified": True, "Other_1 fresh": True, "Other_1 current": False,
    }  # fmt: skip
    _, verified = checks["Feed_main_0 verified"]
    assert (verified["key"], verified["entries"], verified["version"]) == (KEY, 2, "local")
    assert len(verified["digest"]) == 64
    _, fresh = checks["Feed_main_0 fresh"]
    assert 0 <= fresh["age in seconds"] < 3600
    assert fresh["refreshed by"] == "source"
    _, current = checks["Other_1 current"]
    assert current["baseline digest"] == "has no such key"
    # A load reads the manifest: what checks need is imported when they run.
    heavy = ("bundler.artifacts", "bundler.project", "bundler.state", "bundler.system")
    assert [name for name in found["imported"] if name.startswith(heavy)] == []


def test_an_altered_old_or_undated_state_does_not(project: Path) -> None:
    directory = project / _PLACE
    (directory / "Feed__main__/state").write_text("altered")
    found = _checked(project)["checks"]
    assert found["Feed_main_0 verified"][0] is False
    assert "Feed__main__/state" in found["Feed_main_0 verified"][1]["problems"]
    assert found["Other_1 verified"][0] is True
    assert found["Other_1 fresh"][0] is True  # no limit
    _publish(StateDir(directory, _PLACE), "2020-01-01T00:00:00Z", Old="[1]")
    found = _checked(directory, max_age="24h")["checks"]
    assert found["Old_0 fresh"][0] is False
    assert "2020-01-01T00:00:00Z" in found["Old_0 fresh"][1]["problem"]
    (directory / "@run.json").unlink()  # as in an image
    found = _checked(directory, max_age="24h")["checks"]
    assert found["Old_0 fresh"][0] is False
    assert found["Old_0 fresh"][1]["refreshed"].startswith("unknown: the run record of an image")


_COMPONENT = """
import json
from planned.definitions import defs
location = defs()
graph = location.resolve_asset_graph()
keys = [f"{key.asset_key.path[-1]} {key.name}" for key in graph.asset_check_keys]
print("FOUND", json.dumps(sorted(keys)))
"""


def test_the_component_works_from_a_read_only_project(tmp_path: Path) -> None:
    root = make(tmp_path)
    _publish(StateDir(root / "src" / _PLACE, _PLACE), now(), **{KEY: '{"assets": {}}'})
    health = root / "src/planned/defs/health"
    health.mkdir()
    (health / "defs.yaml").write_text(
        "type: bundler.dagster_health.StateHealth\nattributes:\n  max_age: 24h\n"
    )
    before = sorted(path for path in root.rglob("*") if "__pycache__" not in path.parts)
    for path in [root, *root.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    found = _run(
        _COMPONENT,
        PYTHONPATH=f"{ROOT}{os.pathsep}{root / 'src'}",
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert found == ["Feed_main_0 current", "Feed_main_0 fresh", "Feed_main_0 verified"]
    after = sorted(path for path in root.rglob("*") if "__pycache__" not in path.parts)
    for path in [root, *root.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)
    assert after == before


def test_without_a_state_directory_there_is_nothing_to_check(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom bundler.dagster_health import state_health\n"
        "print('FOUND', len(list(state_health(Path(sys.argv[1])).resolve_all_asset_keys())))\n"
    )
    assert _run(program, str(tmp_path)) == 0
