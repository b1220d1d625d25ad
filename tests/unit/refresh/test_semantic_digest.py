"""What of a state means something: times and identifiers of a run do not, columns of a table do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bundler.project.options import KeyOptions
from bundler.refresh.checks import semantic_digest
from bundler.refresh.model import Component
from bundler.refresh.vendors import kind_of
from bundler.state.tree import scan

DBT = kind_of(
    Component("x", "LOCAL_FILESYSTEM", "dagster_dbt.components.component.DbtProjectComponent")
)


def digest(directory: Path, document: Any, options: KeyOptions | None = None) -> str | None:
    directory.mkdir(exist_ok=True)
    (directory / "manifest.json").write_text(json.dumps(document))
    return semantic_digest(directory, scan(directory), DBT, options or KeyOptions())


def manifest(**changes: Any) -> dict[str, Any]:
    plain = {"created_at": 1.5, "user_id": "a", "invocation_id": "b", "root_path": "/c"}
    columns = {"created_at": {"description": "then"}, "user_id": {"description": "who"}}
    return {"metadata": {**plain, **changes}, "columns": {**columns, **changes}}


def test_what_every_run_rewrites_is_ignored_but_a_column_of_that_name_is_not(
    tmp_path: Path,
) -> None:
    before = digest(tmp_path / "x", manifest())
    assert digest(tmp_path / "x", manifest(created_at=2)) != before
    document = manifest()
    document["metadata"] |= {"created_at": 2, "user_id": None, "root_path": "/elsewhere"}
    assert digest(tmp_path / "x", document) == before
    document["columns"]["user_id"] = {"description": "changed"}
    assert digest(tmp_path / "x", document) != before


def test_what_the_project_names_is_left_out_whatever_it_holds(tmp_path: Path) -> None:
    options = KeyOptions(volatile=("columns",))
    before = digest(tmp_path / "x", manifest(), options)
    assert digest(tmp_path / "x", {**manifest(), "columns": {}}, options) == before
