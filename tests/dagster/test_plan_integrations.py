"""``plan`` with unmodified components of Dagster's integrations: Fivetran and dbt. About 60 s."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundler.cli.commands import cli
from bundler.cli.run import run
from tests.support.environments import ROOT, python_of
from tests.support.integrations.fivetran import Fivetran
from tests.support.integrations.running import Account, make_account
from tests.support.integrations.standin import Case


def _run(root: Path, python: Path, *words: str | Path, code: int = 0) -> None:
    here = ("--project", root, "--python", python)
    assert run(cli, [str(word) for word in (*words, *here)]) == code


def _changes(found: Any) -> dict[str, set[str]]:
    """The names of the assets, by what happens to them."""
    (baseline,) = found["baselines"]
    changes: dict[str, set[str]] = {}
    for it in baseline["definitions"]["changes"]:
        if it["kind"] == "assets":
            changes.setdefault(it["change"], set()).add(it["name"])
    return changes


# --- Fivetran ---------------------------------------------------------------------------------

TWENTY = Case("good", size=20)


@pytest.fixture
def fivetran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account of twenty connections, refreshed."""
    with Fivetran(TWENTY) as standin:
        account = make_account(standin, tmp_path / "project")
        for name, value in account.variables.items():
            monkeypatch.setenv(name, value)
        _run(account.root, account.python, "refresh")
        yield account


def test_connections_that_were_deleted_are_assets_that_vanish(
    fivetran: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    root, python, standin = fivetran.root, fivetran.python, fivetran.standin
    before = fivetran.digests()
    fewer = Case("good", size=14)
    standin.cases["good"] = fewer
    capsys.readouterr()
    _run(root, python, "plan", "--format", "json", code=1)
    found = json.loads(capsys.readouterr().out)
    assert _changes(found) == {"removed": standin.assets(TWENTY) - standin.assets(fewer)}
    assert found["baselines"][0]["refused"] == []
    assert fivetran.digests() == before

    # Hardly anything is left: a refresh refuses it, a plan shows it.
    least = Case("good", size=3)
    standin.cases["good"] = least
    _run(root, python, "refresh", code=65)
    plan = root.parent / "plan.bin"
    capsys.readouterr()
    _run(root, python, "plan", "--out", plan, "--format", "json", code=1)
    found = json.loads(capsys.readouterr().out)
    assert _changes(found) == {"removed": standin.assets(TWENTY) - standin.assets(least)}
    (refusal,) = found["baselines"][0]["refused"]
    assert "has shrunk" in refusal
    assert "--allow-shrink 'FivetranAccountComponent[good]'" in refusal
    build = ("build", "oci", "-o", root.parent / "layout", "--no-guard", "--plan", plan)
    _run(root, python, *build, code=65)
    assert not (root.parent / "layout").exists()
    _run(root, python, *build, "--allow-shrink", "Fivetran*")
    assert fivetran.digests() == before


# --- dbt --------------------------------------------------------------------------------------


def test_models_that_appear_and_vanish_compared_with_a_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, python = tmp_path / "project", python_of("dagster")
    shutil.copytree(ROOT / "tests/projects/integration_dbt", root)
    store = f"file://{tmp_path / 'store'}"
    _run(root, python, "refresh")
    assert run(cli, ["store", "push", "--project", str(root), "--store", store]) == 0
    models = root / "orders/models"
    (models / "revenue.sql").rename(models / "profit.sql")
    customers = models / "staging/stg_customers.sql"
    customers.write_text("{{ config(tags=['gold']) }}\n" + customers.read_text())
    capsys.readouterr()
    _run(root, python, "plan", f"store:{store}", "--format", "json", code=1)
    found = json.loads(capsys.readouterr().out)
    assert _changes(found) == {
        "added": {"profit"}, "removed": {"revenue"}, "changed": {"stg_customers"},
    }  # fmt: skip
    (changed,) = [it for it in found["baselines"][0]["definitions"]["changes"]
                  if it["name"] == "stg_customers"]  # fmt: skip
    fields = {it["name"]: it for it in changed["fields"]}
    # dagster-dbt describes a model by its SQL, too.
    assert sorted(fields) == ["code version", "description", "tags"]
    assert fields["tags"]["added"] == ["gold="]
