"""A dbt project's state is compared by what its manifest defines, not by its bytes.

Its main file is empty. Most bytes of a manifest are macros, which remain if all models are lost.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import BadData, ConfigurationError
from bundler.project.options import KeyOptions
from bundler.refresh.checks import Baseline, CheckedState, check, shrunk
from bundler.refresh.model import Component
from bundler.refresh.outcome.exchanges import CopiedDirectory
from bundler.refresh.secrets import Secrets

ORDERS = Component(
    "DbtProjectComponent[orders]", "LOCAL_FILESYSTEM", "dagster_dbt.DbtProjectComponent"
)
SHOP = {"model": 40, "seed": 2, "source": 6, "test": 90}
MACROS = {f"macro.dbt.{number}": {"macro_sql": "x" * 100} for number in range(400)}


def state(folder: Path, resources: dict[str, int], **options: object) -> Baseline:
    """A parsed project in a key directory."""
    names = [f"{kind}.shop.{kind}_{n}" for kind, count in resources.items() for n in range(count)]
    sources = {name: {} for name in names if name.startswith("source.")}
    nodes = {name: {} for name in names if name not in sources}
    document = {
        "nodes": nodes,
        "sources": sources,
        "macros": MACROS,
        "disabled": {"model.shop.x": []},
    }
    _parse(folder, document)
    given = KeyOptions(**options)  # type: ignore[arg-type]
    checked = check(ORDERS, folder, given, secrets=Secrets({}), baseline=None)
    return Baseline(checked.state, folder)


def _parse(folder: Path, document: dict[str, Any]) -> None:
    target = folder / "project/target"
    target.mkdir(parents=True, exist_ok=True)
    (folder / "state").touch()
    (target / "manifest.json").write_text(json.dumps(document))
    (target / "partial_parse.msgpack").write_bytes(b"x" * 100_000)


@pytest.mark.parametrize(
    ("now", "reported"),
    [
        ({}, "the dbt project defines nothing"),
        ({"seed": 2}, "has shrunk from 138 to 2 models, seeds, tests and sources"),
        ({**SHOP, "model": 19}, "`model` in the state has shrunk from 40 to 19 entries"),
        ({**SHOP, "source": 0}, "`source` in the state has shrunk from 6 to 0 entries"),
        ({**SHOP, "model": 39}, None),
        ({**SHOP, "model": 400}, None),
    ],
)
def test_what_a_project_has_lost_is_counted(
    now: dict[str, int], reported: str | None, tmp_path: Path
) -> None:
    before = state(tmp_path / "before", SHOP)
    after = state(tmp_path / "after", now, allow_empty=True)
    refused = shrunk(ORDERS, after, KeyOptions(), before)
    if reported is None:
        assert refused is None
    else:
        assert refused is not None
        assert reported in refused.what
    assert shrunk(ORDERS, after, KeyOptions(allow_empty=True, shrink=0), before) is None


CLOUD = Component(
    "DbtCloudComponent[1-2]",
    "LOCAL_FILESYSTEM",
    "dagster_dbt.cloud_v2.component.dbt_cloud_component.DbtCloudComponent",
)


def cloud(folder: Path, models: int, project: str | None = "1", jobs: int = 8) -> CheckedState:
    """A state from dbt Cloud, checked without any other."""
    folder.mkdir()
    manifest = {
        "metadata": {"env": {"DBT_CLOUD_PROJECT_ID": project} if project else {}},
        "nodes": {f"model.shop.{number}": {} for number in range(models)},
        "macros": MACROS,
    }
    document = {
        "__class__": "DbtCloudWorkspaceData",
        "project_id": 1,
        "jobs": [{"id": number} for number in range(jobs)],
        "manifest": manifest,
    }
    (folder / "state").write_text(json.dumps(document))
    return check(CLOUD, folder, KeyOptions(), secrets=Secrets({}), baseline=None)


def test_a_manifest_from_dbt_cloud_defines_something_and_is_of_its_project(tmp_path: Path) -> None:
    assert cloud(tmp_path / "good", 3).warnings == ()
    assert cloud(tmp_path / "unnamed", 3, None).warnings == ()
    with pytest.raises(BadData, match="the dbt project defines nothing"):
        cloud(tmp_path / "empty", 0)
    with pytest.raises(BadData, match="the manifest of another project, 7"):
        cloud(tmp_path / "other", 3, "7")


@pytest.mark.parametrize(
    ("models", "jobs", "reported"),
    [
        (39, 8, None),
        (19, 8, "has shrunk from 40 to 19 models, seeds, tests and sources"),
        (40, 0, "`jobs` in the state has shrunk from 8 to 0 entries"),
    ],
)
def test_what_dbt_cloud_has_lost_is_counted(
    models: int, jobs: int, reported: str | None, tmp_path: Path
) -> None:
    before = Baseline(cloud(tmp_path / "before", 40).state, tmp_path / "before")
    after = Baseline(cloud(tmp_path / "after", models, jobs=jobs).state, tmp_path / "after")
    refused = shrunk(CLOUD, after, KeyOptions(), before)
    assert (refused is None) == (reported is None)
    assert reported is None or (refused is not None and reported in refused.what)


@pytest.mark.parametrize(
    ("kind", "left", "options", "ships"),
    [
        ("nodes", "models/made.sql", {}, False),
        ("nodes", "seeds/big.csv", {}, False),
        ("macros", "macros/names.sql", {}, False),
        ("sources", "models/sources.yml", {}, False),
        ("docs", "docs/terms.md", {}, False),
        ("patch", "models/orders.yml", {}, False),
        ("nodes", "seeds/big.csv", {"exclude": ("project/seeds",)}, True),
        ("nodes", "models/gone.sql", {}, True),  # a manifest of an earlier run
        ("nodes", "./dbt_project.yml", {}, True),  # on-run-start
        ("analysis", "analyses/notes.sql", {}, True),
        ("package", "models/made.sql", {}, True),  # of another one that has such a file
    ],
)
def test_what_dbt_has_parsed_ships(
    kind: str, left: str, options: dict[str, tuple[str, ...]], tmp_path: Path, *, ships: bool
) -> None:
    """left: a file that is in the manifest and not in the copy."""
    source, folder = tmp_path / "source", tmp_path / "key"
    for root in (source, folder / "project"):
        for name in ("dbt_project.yml", "models/orders.sql"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("x")
    if "gone" not in left:
        (source / left).parent.mkdir(exist_ok=True)
        (source / left).write_text("x")
    place = {"patch_path": f"shop://{left}"} if kind == "patch" else {"original_file_path": left}
    entry = {"package_name": "other" if kind == "package" else "shop", **place}
    name = "analysis.shop.x" if kind == "analysis" else "x.shop.x"
    section = kind if kind in ("macros", "sources", "docs") else "nodes"
    nodes = {"model.shop.y": {}, "model.shop.orders": {"original_file_path": "models/orders.sql"}}
    metadata = {"project_name": "shop"}
    manifest: dict[str, Any] = {"metadata": metadata, "nodes": nodes}
    manifest.setdefault(section, {})[name] = entry
    _parse(folder, manifest)
    copies = [CopiedDirectory(str(source), "project")]
    given = KeyOptions(**options)  # type: ignore[arg-type]
    if ships:
        check(ORDERS, folder, given, secrets=Secrets({}), baseline=None, copies=copies)
        return
    with pytest.raises(ConfigurationError, match=f"dbt has parsed project/{left}") as refused:
        check(ORDERS, folder, given, secrets=Secrets({}), baseline=None, copies=copies)
    assert f'include = ["project/{left}"]' in refused.value.hint


@pytest.mark.parametrize("metadata", [{}, {"project_name": None}, {"project_name": "shop"}])
@pytest.mark.parametrize("package", [{}, {"package_name": None}, {"package_name": "shop"}])
def test_files_of_a_project_whose_name_dbt_does_not_know_ship(
    metadata: dict[str, str | None], package: dict[str, str | None], tmp_path: Path
) -> None:
    """Left out: its only model."""
    (tmp_path / "source/models").mkdir(parents=True)
    (tmp_path / "source/models/made.sql").touch()
    node = {**package, "original_file_path": "models/made.sql"}
    (tmp_path / "key/project").mkdir(parents=True)
    (tmp_path / "key/project/dbt_project.yml").touch()
    _parse(tmp_path / "key", {"metadata": metadata, "nodes": {"model.shop.made": node}})
    copies = [CopiedDirectory(str(tmp_path / "source"), "project")]
    given = KeyOptions()
    with pytest.raises(ConfigurationError, match="dbt has parsed project/models/made"):
        check(ORDERS, tmp_path / "key", given, secrets=Secrets({}), baseline=None, copies=copies)


def test_a_folder_of_models_may_be_called_logs(tmp_path: Path) -> None:
    def key(**options: object) -> CheckedState:
        folder = tmp_path / "key"
        model = folder / "project/models/logs/events.sql"
        model.parent.mkdir(parents=True, exist_ok=True)
        model.write_text("x")
        (folder / "project/dbt_project.yml").write_text("x")
        _parse(folder, {"nodes": {"m.s.e": {"original_file_path": "models/logs/events.sql"}}})
        given = KeyOptions(**options)  # type: ignore[arg-type]
        return check(ORDERS, folder, given, secrets=Secrets({}), baseline=None)

    with pytest.raises(ConfigurationError, match="models/logs/events") as refused:
        key()
    include = refused.value.hint.partition('include = ["')[2].partition('"')[0]
    files = [file.path for file in key(include=(include,)).state.files]
    assert "project/models/logs/events.sql" in files
