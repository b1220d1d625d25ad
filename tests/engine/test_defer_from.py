"""``--defer-from`` takes production's manifest out of every kind of artifact."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.listener import Listener
from bundler.refresh.model import Component, Found
from bundler.refresh.run import Refreshed
from bundler.state.bundle import Bundle
from bundler.state.manifest import DirectoryRefresh, KeyRefresh
from bundler.state.statedir import StateDir
from bundler.workflows.defer import deferred
from tests.support.embedding import embed_pex
from tests.support.engine import Engine
from tests.support.layouts import LayoutMaker
from tests.support.pex_projects import RECORD, package, run_pex
from tests.support.pushing import (  # noqa: F401  # fixtures
    alone,
    embed,
    maker,
    ours,
    push_base,
    skopeo,
)
from tests.support.registries import Registry
from tests.support.statedirs import PLACE, publish

pytestmark = pytest.mark.engine

KEY = "DbtProjectComponent[shop]"
_TARGET = "project/target/manifest.json"
_DEFERS_TO = "project/target/production"


def _published(folder: Path, of: str) -> Bundle:
    """A dbt state as it is after `dbt parse`."""
    files = {
        "state": "",
        _TARGET: json.dumps({"metadata": {"dbt_schema_version": "manifest/v12"}, "of": of}),
        "project/target/partial_parse.msgpack": of,
    }
    return publish(StateDir(folder / PLACE, PLACE), {KEY: files}).bundle


@pytest.fixture
def production(tmp_path: Path) -> Bundle:
    return _published(tmp_path / "production", "production")


@pytest.fixture
def pushed(ours: Registry, maker: LayoutMaker, production: Bundle) -> str:  # noqa: F811
    push_base(maker, f"{ours.host}/shop:1")
    embed(f"{ours.host}/shop:2", production, f"{ours.host}/shop:1")
    return f"{ours.host}/shop:2"


def _deferred_manifest(name: str, folder: Path) -> str:
    """What the state defers to after ``--defer-from`` that artifact."""
    branch = _published(folder / "branch", "branch")
    component = Component(
        KEY, "LOCAL_FILESYSTEM", "dagster_dbt.DbtProjectComponent", defers_in=_DEFERS_TO
    )
    record = DirectoryRefresh(PLACE, (KeyRefresh(KEY),)).of(branch.manifest)
    found = Found(branch.root, PLACE, (component,))
    with ExitStack() as held:
        refreshed = Refreshed((branch,), (record,), (found,))
        made = deferred(refreshed, name, held, Listener())
        (state,) = made.bundles[0].manifest.states
        assert state.defer is not None
        assert made.record[0].keys[0].deferred_from
        directory = (made.bundles[0].held or made.bundles[0].root) / state.path
        assert json.loads((directory / _TARGET).read_text())["of"] == "branch"
        return str(json.loads((directory / state.defer.path).read_text())["of"])


@pytest.mark.parametrize("scheme", ["docker://", ""])
def test_an_image_in_a_registry(scheme: str, pushed: str, tmp_path: Path) -> None:
    assert _deferred_manifest(f"{scheme}{pushed}", tmp_path) == "production"


def test_an_image_in_an_engine(
    engine: Engine, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in engine.environment.items():
        if name.startswith("DOCKER_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("STATE_BUNDLER_DOCKER", engine.clis[0])
    engine.docker("pull", "--quiet", pushed)
    assert _deferred_manifest(f"docker-daemon:{pushed}", tmp_path) == "production"


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_a_layout_or_an_archive(kind: str, pushed: str, tmp_path: Path) -> None:
    target = tmp_path / "copied.tar"
    name = f"{kind}:{target}:prod"
    skopeo("copy", "--src-tls-verify=false", f"docker://{pushed}", name)
    given = str(target) if kind == "oci-archive" else name
    assert _deferred_manifest(given, tmp_path) == "production"


def test_a_pex(production: Bundle, tmp_path: Path) -> None:
    pex = tmp_path / "app.pex"
    source = package(tmp_path / "source")
    run_pex("-D", source, "-o", pex, "-m", "shop", cwd=tmp_path, root=tmp_path / "root")
    embed_pex(pex, [production], RECORD, pex)
    assert _deferred_manifest(str(pex), tmp_path) == "production"


def test_a_store_after_a_rollback(production: Bundle, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    push = ["store", "push", "--store", url]
    assert run(cli, [*push, str(tmp_path / "production")]) == 0
    _published(tmp_path / "newer", "newer")
    assert run(cli, [*push, str(tmp_path / "newer")]) == 0
    assert _deferred_manifest(f"store:{url}", tmp_path / "one") == "newer"
    assert run(cli, ["store", "rollback", "--store", url]) == 0
    assert _deferred_manifest(f"store:{url}", tmp_path / "two") == "production"


def test_a_state_directory(production: Bundle, tmp_path: Path) -> None:
    assert _deferred_manifest(str(production.root), tmp_path) == "production"
