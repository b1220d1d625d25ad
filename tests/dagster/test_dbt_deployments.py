"""dbt in deployments: a branch that defers to production, and state in a store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from bundler.artifacts.extract import extract
from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.state.bundle import MANIFEST_NAME
from bundler.state.manifest import State, parse
from tests.support import sample, warm
from tests.support.deployments import make_home
from tests.support.environments import ROOT, python_of
from tests.support.statedirs import snapshot

KEY = "DbtProjectComponent[orders]"
_STATES = "warehouse/defs/.local_defs_state"
_PRODUCTION = "target/production"
_PROFILES = """\
orders:
  target: duckdb
  outputs:
    duckdb:
      type: duckdb
      path: "{{ env_var('SHOP_WAREHOUSE') }}"
      schema: "{{ env_var('SHOP_SCHEMA') }}"
"""
_DECLARED = """\
type: dagster_dbt.DbtProjectComponent
attributes:
  project:
    project_dir: "{{ project_root }}/orders"
"""


def _project(folder: Path, declared: str) -> Path:
    root = folder / "project"
    shutil.copytree(ROOT / "tests/projects/integration_dbt", root)
    (root / "orders/profiles.yml").write_text(_PROFILES)
    (root / "warehouse/defs/account/defs.yaml").write_text(declared)
    return root


def _run(root: Path, *words: str | Path, code: int = 0, python: Path | None = None) -> None:
    here = ("--project", root, "--python", python or python_of("dagster"))
    assert run(cli, [str(word) for word in (*words, *here)]) == code


# --- defer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that is refreshed, and next to it the image of production: ``oci:production``."""
    folder = tmp_path_factory.mktemp("defer")
    root = _project(folder, f"{_DECLARED}    state_path: {_PRODUCTION}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_WAREHOUSE", str(folder / "shop.duckdb"))
        patch.setenv("SHOP_SCHEMA", "production")
        _run(root, "build", "oci", "-o", folder / "production", "--no-guard")
    return root


@pytest.fixture
def root(production: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_WAREHOUSE", str(production.parent / "shop.duckdb"))
    monkeypatch.setenv("SHOP_SCHEMA", "branch")
    return production


def _state_of(layout: Path, folder: Path) -> tuple[State, Path]:
    with open_artifact(f"oci:{layout}") as artifact:
        verify(artifact).raise_for_problems()
        (found,) = extract(artifact, folder)
    (state,) = found.manifest.states
    return state, found.target / state.path


_DEFER = """
import sys
from pathlib import Path
from dagster_dbt import DbtCliResource, DbtProject
dbt = DbtCliResource(DbtProject(sys.argv[1], state_path=sys.argv[2]))
arguments = dbt.get_defer_args()
assert arguments, "there is no manifest to defer to"
command = ["compile", "--quiet", "--select", "revenue", "--favor-state", *arguments]
dbt.cli(command, target_path=Path(sys.argv[3])).wait()
"""


def test_a_branch_defers_to_production(root: Path, tmp_path: Path) -> None:
    before = snapshot(root / _STATES)
    layouts = root.parent / "production", tmp_path / "branch"
    build = ("build", "oci", "-o", layouts[1], "--no-guard", "--refresh", "never")
    _run(root, *build, "--defer-from", f"oci:{layouts[0]}:latest")
    assert snapshot(root / _STATES) == before
    old, old_directory = _state_of(layouts[0], tmp_path / "old")
    new, directory = _state_of(layouts[1], tmp_path / "new")
    assert old.defer is None
    assert new.defer is not None
    assert new.defer.state == old.digest.dir_hash
    assert new.defer.path == f"project/{_PRODUCTION}/manifest.json"
    manifest = (old_directory / "project/target/manifest.json").read_bytes()
    assert (directory / new.defer.path).read_bytes() == manifest
    assert {file.path for file in new.files} == {*(it.path for it in old.files), new.defer.path}
    with open_artifact(f"oci:{layouts[1]}") as artifact:
        record = artifact.run_record()
        digest = open_artifact(f"oci:{layouts[0]}").digest
    assert record is not None
    assert record.refresh[0].keys[0].deferred_from == f"oci:production:latest@{digest}"
    # dbt itself: what is not built here is read from production.
    compiled = tmp_path / "compiled"
    _script(_DEFER, directory / "project", _PRODUCTION, compiled)
    (sql,) = compiled.rglob("compiled/**/revenue.sql")
    assert '"production"."stg_orders"' in sql.read_text()
    assert '"branch"' not in sql.read_text()


def _script(text: str, *arguments: str | Path, cwd: Path | None = None, **env: str) -> str:
    python = python_of("dagster")
    path = f"{warm.program(python, 'dbt').parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [warm.program(python), "-c", text, *arguments],
        cwd=cwd,
        env={**os.environ, "PATH": path, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def _declare(root: Path, *more: str) -> None:
    text = "".join([_DECLARED, *(f"    {line}\n" for line in more)])
    (root / "warehouse/defs/account/defs.yaml").write_text(text)


@pytest.mark.parametrize(
    ("lines", "name", "code", "reported"),
    [
        ((), "production", 78, "No embedded dbt project has a state_path"),
        (("state_path: /somewhere/else",), "production", 78, "is outside of its state"),
        (("state_path: ../../../else",), "production", 78, "is outside of its state"),
        ((f"state_path: {_PRODUCTION}",), "other", 76, "contains none of the dbt projects"),
    ],
)
def test_what_cannot_be_deferred_to(
    root: Path,
    *,
    lines: Sequence[str],
    name: str,
    code: int,
    reported: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _declare(root, *lines)
    other = tmp_path / "sources"
    other.mkdir()
    (other / "pyproject.toml").write_text(
        '[[tool.state-bundler.source]]\nkey = "Other"\npath = "states"\n'
        'command = ["sh", "-c", \'echo 1 > {state_path}\']\n'
    )
    if name == "other":
        argv = ["build", "oci", "--no-guard", "--project", str(other)]
        assert run(cli, [*argv, "-o", str(root.parent / "other")]) == 0
    build = ("build", "oci", "-o", tmp_path / "branch", "--no-guard", "--refresh", "never")
    try:
        _run(root, *build, "--defer-from", f"oci:{root.parent / name}:latest", code=code)
    finally:
        _declare(root, f"state_path: {_PRODUCTION}")
    assert reported in capsys.readouterr().err
    assert not (tmp_path / "branch").exists()


# --- in a store -------------------------------------------------------------------------------

_LOAD = """
import sys
sys.path.append(sys.argv[1])  # what the storage needs is not in this environment
from dagster import AssetKey, DagsterInstance
with DagsterInstance.get() as instance:
    from warehouse.definitions import defs
    location = defs()
    print("ASSETS", *sorted(key.to_user_string() for key in location.resolve_all_asset_keys()))
    if sys.argv[2:]:
        job = location.resolve_implicit_global_asset_job_def()
        keys = [AssetKey(name) for name in sys.argv[2:]]
        result = job.execute_in_process(instance=instance, asset_selection=keys)
        made = {it.asset_key.to_user_string() for it in result.get_asset_materialization_events()}
        print("MADE", *sorted(made))
"""


def test_new_models_reach_production_through_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = _DECLARED.replace(
        "dagster_dbt.DbtProjectComponent", "bundler.dagster_dbt.StoredDbtProject"
    )
    root = _project(tmp_path, declared)
    for name, value in {
        "SHOP_WAREHOUSE": str(tmp_path / "shop.duckdb"),
        "SHOP_SCHEMA": "production",
        "STATE_BUNDLER_STORE": (url := f"file://{tmp_path / 'store'}"),
    }.items():
        monkeypatch.setenv(name, value)
    python = sample.make_environment(tmp_path / "environment", ROOT, root)
    latest = make_home(tmp_path / "latest", url)
    _run(root, "refresh", "--push", python=python)
    assert _load(root, latest) == ["raw_customers", "raw_orders", "revenue",
                                   "stg_customers", "stg_orders"]  # fmt: skip
    build = ("build", "oci", "-o", tmp_path / "image", "--no-guard", "--pin-versioned")
    _run(root, *build, python=python)
    with open_artifact(f"oci:{tmp_path / 'image'}") as artifact:
        (directory,) = artifact.state_directories()
        raw = directory.read_manifest() or b""
    (pinned,) = parse(raw).predicate.contents.non_local
    assert pinned.key == KEY
    assert pinned.version
    # Another model, and no other image: it is loaded, and dbt runs it.
    (root / "orders/models/profit.sql").write_text("select 1 as profit")
    _run(root, "refresh", "--push", python=python)
    shutil.rmtree(root / "orders")  # an image of the code need not have it
    shutil.rmtree(root / _STATES, ignore_errors=True)
    assert "profit" in _load(root, latest, "profit")
    # The image loads the version that it pins, though it is neither current nor among the newest.
    store = ("--store", url)
    prune = ["store", "prune", "--keep", "1", *store]
    capsys.readouterr()
    assert run(cli, [*prune, "--dry-run"]) == 0
    assert pinned.version in capsys.readouterr().out
    assert run(cli, ["store", "pin", pinned.version, *store]) == 0
    assert run(cli, prune) == 0
    assert "\n0 versions" in capsys.readouterr().out
    (root / _STATES).mkdir()
    (root / _STATES / MANIFEST_NAME).write_bytes(raw)
    image = make_home(tmp_path / "pinned", url, versions="pinned")
    assert "profit" not in _load(root, image, "raw_orders")
    # After a rollback, that is what every program loads.
    assert run(cli, ["store", "rollback", "--at", pinned.version, *store]) == 0
    assert "profit" not in _load(root, latest)


def _load(root: Path, home: Path, *made: str) -> list[str]:
    path = f"{ROOT}{os.pathsep}{root}"
    arguments = (sysconfig.get_path("purelib"), *made)
    out = _script(_LOAD, *arguments, cwd=root, DAGSTER_HOME=str(home), PYTHONPATH=path)
    reported = dict(line.split(" ", 1) for line in out.splitlines() if line[:4] in ("ASSE", "MADE"))
    if made:
        assert reported["MADE"].split() == [*made]
    return reported["ASSETS"].split()
