from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bundler.artifacts.diff import Difference, brief, diff
from bundler.artifacts.open import open_artifact
from bundler.errors import VerificationFailed
from bundler.project.options import RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from bundler.state.directory import DirectoryArtifact
from bundler.state.jsondiff import JsonChange, compare, summary
from bundler.state.manifest import RunRecord
from bundler.state.tree import File, dir_hash
from bundler.state.volatile import DBT_MEMBERS, FIVETRAN_MEMBERS, Volatile, meaning
from tests.support import forked
from tests.support.bundles import PLACE, make_bundle
from tests.support.embedding import embed_layout
from tests.support.recording import RecordingListener

_States = Mapping[str, Mapping[str, bytes]]


def _make(root: Path, states: _States) -> Path:
    make_bundle(root / "shop/defs/.local_defs_state", states)
    return root


def _diff(tmp_path: Path, before: _States, after: _States, *volatile: str) -> Difference:
    one, other = _make(tmp_path / "a", before), _make(tmp_path / "b", after)
    with DirectoryArtifact(one) as first, DirectoryArtifact(other) as second:
        return diff(first, second, volatile)


def _state(value: object) -> dict[str, bytes]:
    return {"state": json.dumps(value).encode()}


def test_keys_are_added_removed_changed_or_the_same(tmp_path: Path) -> None:
    before = {"A": _state([1]), "B": _state([1]), "C": _state([1])}
    after = {"A": _state([1]), "B": _state([1, 2]), "D": _state([1])}
    found = _diff(tmp_path, before, after)
    assert [(key.key, key.kind) for key in found.keys] == [
        ("B", "changed"),
        ("C", "removed"),
        ("D", "added"),
    ]
    assert found.unchanged == 1
    assert found.differs


def test_files_of_a_directory_state(tmp_path: Path) -> None:
    before = {"A": {"state": b"", "x/1.sql": b"1", "x/2.sql": b"2"}}
    after = {"A": {"state": b"", "x/2.sql": b"22", "x/3.json": b"{}"}}
    (key,) = _diff(tmp_path, before, after).keys
    assert [(file.path, file.kind) for file in key.files] == [
        ("x/1.sql", "removed"),
        ("x/2.sql", "changed"),
        ("x/3.json", "added"),
    ]


def test_the_same_json_in_another_form_differs_in_form_only(tmp_path: Path) -> None:
    (key,) = _diff(tmp_path, {"A": {"state": b"[1, 2]"}}, {"A": {"state": b"[1,2]"}}).keys
    assert key.files[0].form_only
    assert key.files[0].changes == ()


def test_what_the_user_calls_volatile_is_not_a_difference(tmp_path: Path) -> None:
    found = _diff(tmp_path, {"A": _state({"at": 1})}, {"A": _state({"at": 2})}, "at")
    assert [key.kind for key in found.keys] == ["volatile"]
    assert not found.differs


def _dbt(models: Mapping[str, str], at: str) -> dict[str, bytes]:
    nodes = {
        f"model.shop.{name}": {
            "resource_type": "model",
            "name": name,
            "raw_code": code,
            "created_at": at,
            "checksum": {"name": "sha256", "checksum": code},
        }
        for name, code in models.items()
    }
    version = "https://schemas.getdbt.com/dbt/manifest/v12.json"
    metadata = {"dbt_schema_version": version, "generated_at": at}
    manifest = {"metadata": metadata, "nodes": nodes, "parent_map": {name: [] for name in nodes}}
    return {"state": b"", "project/target/manifest.json": json.dumps(manifest).encode()}


def test_dbt_is_reported_by_model(tmp_path: Path) -> None:
    before = {"dbt": _dbt({"orders": "select 1\nfrom x", "old": "select 0\nfrom y"}, "1")}
    after = {"dbt": _dbt({"orders": "select 2\nfrom x", "new": "select 3\nfrom z"}, "2")}
    (key,) = _diff(tmp_path, before, after).keys
    assert key.summary == "+1 model, -1 model, 1 model changed"


def test_a_directory_that_dagster_alone_has_filled_is_compared_too(tmp_path: Path) -> None:
    one = _make(tmp_path / "a", {"A": _state([1])})
    other = tmp_path / "b" / ".local_defs_state"
    shutil.copytree(one / "shop/defs/.local_defs_state", other)
    (other / "@manifest.json").unlink()
    (other / "A" / "state").write_text("[1, 2]")
    with DirectoryArtifact(one) as first, DirectoryArtifact(other.parent) as second:
        (key,) = diff(first, second).keys
    assert key.summary == "+1 entry"


def test_an_altered_file_is_not_compared(tmp_path: Path) -> None:
    one, other = (
        _make(tmp_path / "a", {"A": _state([1])}),
        _make(tmp_path / "b", {"A": _state([2])}),
    )
    (other / "shop/defs/.local_defs_state/A/state").write_text("[3]")
    with (
        DirectoryArtifact(one) as first,
        DirectoryArtifact(other) as second,
        pytest.raises(VerificationFailed, match="A/state was altered"),
    ):
        diff(first, second)


def test_artifacts_of_different_kinds(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "p" / ".local_defs_state", {"A": _state([{"id": 1}])})
    embed_layout(None, [bundle], RunRecord(), tmp_path / "layout")
    other = _make(tmp_path / "b", {"A": _state([{"id": 1}, {"id": 2}])})
    with open_artifact(f"oci:{tmp_path}/layout") as first, open_artifact(str(other)) as second:
        assert diff(first, second).keys[0].summary == "+1 entry"
        assert not diff(first, first).differs


def test_brief_is_one_line_about_two_key_directories(tmp_path: Path) -> None:
    for name, items in (("a", [1]), ("b", [1, 2, 3])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state").write_text(json.dumps({"tables": items}))
    assert brief(tmp_path / "a", tmp_path / "b") == "+2 tables"
    (tmp_path / "b" / "state").write_text("no JSON")
    assert brief(tmp_path / "a", tmp_path / "b") == ""


def _macros(sql: str, at: str) -> dict[str, bytes]:
    manifest = json.loads(_dbt({"orders": "select 1"}, at)["project/target/manifest.json"])
    manifest["macros"] = {"macro.shop.tax": {"macro_sql": sql}}
    return {"state": json.dumps(manifest).encode()}


def _connector(name: str, at: str) -> dict[str, bytes]:
    return _state({"created_at": name, "succeeded_at": at})


_KNOWN = {"dbt": DBT_MEMBERS, "fivetran": FIVETRAN_MEMBERS}


@pytest.mark.parametrize(
    ("kind", "before", "after", "differs"),
    [
        ("fivetran", _connector("1", "1"), _connector("2", "2"), True),
        ("fivetran", _connector("1", "1"), _connector("1", "2"), False),
        ("dbt", _macros("a", "1"), _macros("b", "2"), True),
        ("dbt", _macros("a", "1"), _macros("b", "1"), True),
        ("dbt", _macros("a", "1"), _macros("a", "2"), False),
    ],
)
def test_what_a_refresh_publishes_is_a_difference(
    kind: str,
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
    differs: bool,
    tmp_path: Path,
) -> None:
    roots = tmp_path / "a", tmp_path / "b"
    for root, files in zip(roots, (before, after), strict=True):
        root.mkdir()
        (root / "state").write_bytes(files["state"])
        digest = meaning(root / "state", "", Volatile(frozenset(_KNOWN[kind])))
        semantic = dir_hash([File("state", digest, 0)])
        make_bundle(root / PLACE, {"A": {"state": files["state"]}}, semantic=semantic)
    with DirectoryArtifact(roots[0]) as first, DirectoryArtifact(roots[1]) as second:
        found = diff(first, second)
    assert found.differs is differs
    (key,) = found.keys
    assert [file.kind for file in key.files] == ["changed" if differs else "volatile"]
    assert not key.files[0].form_only


def test_a_refresh_reports_the_counts_and_binds_its_record(tmp_path: Path) -> None:
    source = '[[tool.state-bundler.source]]\nkey = "A"\ncommand = ["cp", "in", "{state_path}"]\n'
    (tmp_path / "pyproject.toml").write_text(f'{source}path = "src/state"\nplace = "shop/state"\n')
    project = open_project(tmp_path, python=Path(sys.executable))
    listener = RecordingListener()
    for tables in ([1, 2, 3], [2, 3, 4, 5], [2, 3, 4, 5]):
        (tmp_path / "in").write_text(json.dumps({"tables": tables}))
        done = refresh([project], RefreshOptions(), listener)
    details = [item.detail for item in listener.progress if item.phase == "done"]
    assert details == ["", "+2 tables, -1 table", "unchanged"]
    digest = done.bundles[0].manifest.content_digest
    assert [entry.content_digest for entry in done.record] == [digest]
    with DirectoryArtifact(tmp_path / "src/state") as artifact:
        record = artifact.run_record()
    assert record is not None
    assert record.refresh[0].content_digest == digest


def _cli(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = ["diff", tmp_path / "a", tmp_path / "b", *options]
    return forked.said("state-bundler", *words, env={**os.environ, "NO_COLOR": "1"})


def test_a_value_of_another_type_counts_next_to_an_ignored_one() -> None:
    items = [{"id": 1, "on": 1}, {"id": 2}], [{"id": 2}, {"id": 1, "on": True}]
    before, after = (
        {"at": at, "items": it, "n": n} for at, it, n in zip((1, 2), items, (1, 1.0), strict=True)
    )
    found = {it.name: it for it in compare(before, after, frozenset({"at"}))}
    assert found.keys() == {"at", "1", "items", "n"}
    assert [it.name for it in found.values() if it.volatile] == ["at"]


def test_a_summary_is_one_line() -> None:
    assert summary([JsonChange("added", "a", "x\nKeys: 0 changed.\nys")]).count("\n") == 0


def test_the_command_shows_it_and_ends_with_1(tmp_path: Path) -> None:
    _make(tmp_path / "a", {"A|<x>": _state({"tables": [{"name": "x", "n": 1}]})})
    _make(tmp_path / "b", {"A|<x>": _state({"tables": [{"name": "x", "n": 2}]})})
    text = _cli(tmp_path)
    assert (text.returncode, text.stderr) == (1, "")
    assert "~ table x" in text.stdout
    assert "~ n: 1 -> 2" in text.stdout
    assert text.stdout.endswith("Keys: 1 changed, 0 unchanged.\n")
    markdown = _cli(tmp_path, "--format", "markdown")
    assert "| `A\\|<x>` | 1 table changed, " in markdown.stdout
    assert "<summary><code>A|&lt;x&gt;</code></summary>" in markdown.stdout
    reported = json.loads(_cli(tmp_path, "--format", "json").stdout)
    assert reported["keys"][0]["summary"] == "1 table changed"
    shutil.rmtree(tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert _cli(tmp_path).returncode == 0


def _dated(succeeded: int, created: int) -> dict[str, bytes]:
    return _state({"connectors": [{"id": "a", "succeeded_at": succeeded, "created_at": created}]})


def _with(dbt: Mapping[str, bytes], **sections: object) -> dict[str, bytes]:
    path = "project/target/manifest.json"
    return {**dbt, path: json.dumps({**json.loads(dbt[path]), **sections}).encode()}


def _difference(
    folder: Path,
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
    known: tuple[str, ...],
    *named: str,
) -> Difference:
    """known: members that a refresh leaves out of the digest. named: those that diff ignores."""
    one, other = folder / "a", folder / "b"
    for root, files in ((one, before), (other, after)):
        make_bundle(root / "shop/defs/.local_defs_state", {"A": files}, volatile=known)
    with DirectoryArtifact(one) as first, DirectoryArtifact(other) as second:
        return diff(first, second, named)


@pytest.mark.parametrize(
    ("before", "after", "known", "differs"),
    [
        (_dated(1, 1), _dated(2, 1), FIVETRAN_MEMBERS, False),
        # A name that is volatile in dbt's states means something in those of Fivetran.
        (_dated(1, 1), _dated(2, 2), FIVETRAN_MEMBERS, True),
        (_dbt({"a": "1"}, "1"), _dbt({"a": "1"}, "2"), DBT_MEMBERS, False),
        *(
            (
                _with(_dbt({"a": "1"}, "1"), **{name: {"x": {"sql": "1"}}}),
                _with(_dbt({"a": "1"}, at), **{name: {"x": {"sql": "2"}}}),
                DBT_MEMBERS,
                True,
            )
            for name in ("macros", "unit_tests", "groups", "docs")
            for at in ("1", "2")
        ),
    ],
)
def test_a_key_differs_if_its_meaning_does_as_a_refresh_decides(
    tmp_path: Path,
    before: dict[str, bytes],
    after: dict[str, bytes],
    known: tuple[str, ...],
    differs: bool,
) -> None:
    found = _difference(tmp_path, before, after, known)
    assert found.differs is differs
    (key,) = found.keys
    assert any(file.kind == "changed" for file in key.files) is differs
    assert not any(file.form_only for file in key.files)


@pytest.mark.parametrize(
    ("before", "after", "known", "differs"),
    [
        (_dated(1, 1), _dated(2, 1), FIVETRAN_MEMBERS, False),
        (_dated(1, 1), _dated(1, 2), FIVETRAN_MEMBERS, True),
        (_dated(1, 1), _dated(1, 2), ("other",), True),
        (_dated(1, 1), _dated(2, 1), (), True),
        (_state([1]) | {"run.log": b"1"}, _state([1]) | {"run.log": b"2"}, ("other",), True),
        (_dbt({"a": "1"}, "1"), _dbt({"a": "1"}, "2"), DBT_MEMBERS, False),
        (_dbt({"a": "1"}, "1"), _dbt({"a": "2"}, "1"), DBT_MEMBERS, True),
        (_dbt({}, "1") | {"x.log": b"1"}, _dbt({}, "2") | {"x.log": b"2"}, DBT_MEMBERS, False),
    ],
)
def test_volatile_names_are_added_to_those_of_the_states_own_vendor(
    tmp_path: Path,
    before: dict[str, bytes],
    after: dict[str, bytes],
    known: tuple[str, ...],
    differs: bool,
) -> None:
    """A name that is volatile in one vendor's states means something in those of another."""
    assert _difference(tmp_path, before, after, known, "unrelated").differs is differs


def test_brief_ignores_what_its_caller_names(tmp_path: Path) -> None:
    for name, files in (("a", _dated(1, 1)), ("b", _dated(2, 1))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state").write_bytes(files["state"])
    folders = tmp_path / "a", tmp_path / "b"
    assert brief(*folders) == "1 connector changed"
    assert brief(*folders, FIVETRAN_MEMBERS) == ""
