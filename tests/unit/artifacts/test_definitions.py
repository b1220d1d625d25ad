"""What of a described code location is shown, and that a secret is not; with made-up answers."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from bundler.artifacts.definitions import Request, describe
from bundler.artifacts.running import Runner
from bundler.cli.definitions import markdown
from bundler.errors import UsageError, VerificationFailed
from bundler.listener import Listener
from bundler.project.projects import Project, open_project
from bundler.refresh.secrets import Secrets
from bundler.state.definitions import Definitions, compare, merge
from bundler.state.jsondiff import apart
from bundler.system.process import Completed
from bundler.worker import describing, values
from bundler.worker.definitions import MARKER, _add
from bundler.workflows.definitions import Loader, _targets
from bundler.workflows.loadcheck import LoadCheck, compare_with_plan

_SECRET = "correct-horse-battery"
_DIGEST = re.compile("#[0-9a-f]{8}")


def _runner(reported: Mapping[str, Any]) -> Runner:
    def run(*_: Any) -> Completed:
        return Completed(0, f"\n{MARKER}{json.dumps(reported)}\n".encode(), b"")

    return run


def _asset(version: str = "", name: str = "orders", **fields: Any) -> dict[str, Any]:
    return {"definitions": {"assets": {name: fields}}, "version": version}


def _described(reported: Mapping[str, Any], secret: str = _SECRET) -> Definitions:
    redact = Secrets({"TOKEN": secret}).redact
    return describe(_runner(reported), Request("shop"), {}, "app.pex", redact)


def _project(folder: Path, table: str = "") -> Project:
    dg = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
    (folder / "pyproject.toml").write_text(f'[project]\nname = "shop"\n{dg}{table}')
    (folder / "src/shop").mkdir(parents=True)
    return open_project(folder, python=Path(sys.executable))


# --- secrets --------------------------------------------------------------------------------


def _text(before: int, secret: str) -> str:
    return "x" * before + secret + "y" * 300


@pytest.mark.parametrize("before", range(170, 210, 3))
def test_no_part_of_a_secret_that_spans_a_cut_is_shown(before: int) -> None:
    texts = [
        _described(_asset(description=value, tags={"a": value}, owners=[value]), secret)
        for secret in (_SECRET, "Troubadour3-and-more")
        for value in (_text(before, secret), f"{_text(before, secret)}{values.DIGESTED}z")
    ]
    for found in texts:
        assert "corr" not in str(found)
        assert "Trou" not in str(found)
    # Without the salted digest, nobody can guess the secret.
    portable = [found.portable() for found in texts]
    assert portable[:2] == portable[2:]
    assert _DIGEST.search(texts[0].assets["orders"]["description"])


@pytest.mark.parametrize("before", [1990, 2000])
def test_an_error_is_cut_after_secrets_are_removed(before: int) -> None:
    found = _described({"definitions": {}, "error": _text(before, _SECRET)})
    assert found.error is not None
    assert len(found.error) == 2000
    assert "corr" not in found.error


def test_a_secret_in_a_name_is_removed_and_one_like_a_field_changes_no_field() -> None:
    reported = {
        **_asset(name=f"a/{_SECRET}", group="g", tags={_SECRET: "1"}),
        "keys": {f"K[{_SECRET}]": {"assets": [f"a/{_SECRET}"]}},
        "states": {f"K[{_SECRET}]": True},
    }
    shown = json.loads(json.dumps(reported).replace(_SECRET, "[TOKEN]"))
    found = _described(reported)
    assert found.portable().definitions == shown["definitions"]
    assert (found.keys, found.states) == (shown["keys"], shown["states"])
    for secret in ("definitions", "assets", "description"):
        found = _described(_asset(description=f"about {secret}"), secret)
        assert found.portable().assets == {"orders": {"description": "about [TOKEN]"}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("https://h/x?id=1", "https://h/x?id=2"),
        ("postgres://me:one@h/x", "postgres://me:two@h/x"),
        (_SECRET, f"{_SECRET}{_SECRET}"),
        (f"{'x' * 300} https://h/?a=1", f"{'x' * 300} https://h/?a=2"),
        (f"label{values.DIGESTED}https://h/?a=1", f"label{values.DIGESTED}https://h/?a=2"),
    ],
)
def test_a_change_of_what_is_not_shown_is_a_change(before: str, after: str) -> None:
    """A query or a password in an address is removed, but not the fact that it changed."""
    fields = {"metadata": {"url": before}, "owners": [before]}
    one, again, other = (
        _described(_asset(**json.loads(json.dumps(fields).replace(*words))))
        for words in (("", ""), ("", ""), (json.dumps(before)[1:-1], json.dumps(after)[1:-1]))
    )
    assert compare(one, again).changes == ()
    (change,) = compare(one, other).changes
    assert {field.name for field in change.fields} == {"metadata", "owners"}
    reported = str((one, other, change))
    assert not any(part in reported for part in ("id=", "one@", "two@", "a=1", "a=2", _SECRET))
    # Another process cannot compare that: it has another salt.
    assert "removed" not in str(one.portable())


def test_definitions_that_differ_only_in_a_secret_are_all_shown() -> None:
    reported = _asset()
    reported["definitions"]["assets"] = {f"https://h/?table={n}": {"group": "g"} for n in range(3)}
    found = _described(reported)
    assert list(found.assets) == ["https://h/", "https://h/ (2)", "https://h/ (3)"]


@pytest.mark.parametrize("variable", ["REGION", "DEBUG", "DB_PASSWORD"])
@pytest.mark.parametrize("value", ["prod", "true", "definitions", "group"])
def test_a_finished_artifact_is_redacted_as_the_plan_is(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    project = _project(tmp_path, '[tool.state-bundler]\nsecrets = ["DB_PASSWORD"]\n')
    reported = _asset(name="prod/orders", group="prod", blocking=True, description=f"of {value}")
    redact = Loader(project, None, (), Listener())._surroundings().secrets.redact
    planned = describe(_runner(reported), Request(""), {}, "shop", redact).portable()
    demanded = LoadCheck((), environment={variable: value})
    expected = {project.name: planned}
    compare_with_plan(_runner(reported), demanded, [project], expected, "app.pex")
    reported["definitions"]["assets"]["prod/orders"]["group"] = "test"
    with pytest.raises(VerificationFailed, match="has a different group"):
        compare_with_plan(_runner(reported), demanded, [project], expected, "app.pex")


def test_a_comparison_knows_the_secrets_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_LOGIN", _SECRET)
    monkeypatch.setenv("PUBLIC_TOKEN", "everyone-may-see-it")
    table = '[tool.state-bundler]\nsecrets = ["SHOP_LOGIN"]\nnot-secrets = ["PUBLIC_TOKEN"]\n'
    loader = Loader(_project(tmp_path, table), None, (), Listener())
    redact = loader._surroundings().secrets.redact
    assert redact(f"{_SECRET} everyone-may-see-it") == "[SHOP_LOGIN] everyone-may-see-it"


# --- folders --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "text", "expected"),
    [
        ("/", "*/5 * * * *", "*/5 * * * *"),
        ("", "abc", "abc"),
        ("/5", "*/5 * * * *", "*/5 * * * *"),
        ("/app", "https://wiki.acme.com/apps/rates", "https://wiki.acme.com/apps/rates"),
        ("/app", "https://wiki.acme.com/app/rates", "https://wiki.acme.com/app/rates"),
        ("/app", "https://app/rates", "https://app/rates"),
        ("/app", "${ROOT}/app, **/app, ./app, /app.old, /app-2", None),
        ("/app", "/app", "…"),
        ("/app/", "in /app/x and '/app/y'. See /app.", "in …/x and '…/y'. See …."),
        ("/tmp/s-1", "file:///tmp/s-1/a, sqlite:////tmp/s-1/b", "file://…/a, sqlite:///…/b"),
        ("/tmp/s-1", "PosixPath('/tmp/s-1') a=/tmp/s-1", "PosixPath('…') a=…"),
    ],
)
def test_only_a_whole_path_is_left_out(
    folder: str, text: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "_FOLDERS", {})
    values.leave_out(folder)
    assert values.stable(text) == (text if expected is None else expected)


class _Loud(dict[str, int]):
    def __repr__(self) -> str:
        return f"Loud{list(self)}"


class _Pair(NamedTuple):
    left: Any
    right: Any = None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": {"d": [], "c": (1,)}}, "{'a': {'c': (1,), 'd': []}, 'b': 1}"),
        ([{"b": 1, "a": 2}, "{b, a}"], "[{'a': 2, 'b': 1}, '{b, a}']"),
        (({2, 1}, {"b", "a"}), "({1, 2}, {'a', 'b'})"),
        ([frozenset({16, 8, 0})], "[frozenset({0, 16, 8})]"),
        (({"b": 1, "a": 2},), "({'a': 2, 'b': 1},)"),
        (_Pair({"b": 1, "a": 2}), "_Pair(left={'a': 2, 'b': 1}, right=None)"),
        (_Pair(_Loud(b=1, a=2)), "_Pair(left=Loud['b', 'a'], right=None)"),
        (["b", "a"], "['b', 'a']"),
        ({}, "{}"),
    ],
)
def test_the_order_of_members_is_not_a_change(value: Any, expected: str) -> None:
    assert values.written(value) == values.text_of(value) == expected


# --- comparing ------------------------------------------------------------------------------


_LONG = "a" * 250


@pytest.mark.parametrize("same_dagster", [True, False])
@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("description", "See ticket #12: sales", "See ticket #99: finance"),
        ("description", "version #12345678", "version #abcdef12"),
        ("description", f"{_LONG}1", f"{_LONG}2"),
        ("partitions", f"{_LONG}1", f"{_LONG}2"),
        ("partitions", "'#1', 'b #2'", "'#1', 'b #3'"),
        ("made with", "2 #12345678", "2 #abcdef12"),
        ("automation", f"eager #1{values.DIGESTED}a", f"eager #2{values.DIGESTED}a"),
    ],
)
def test_a_change_of_text_is_a_change_between_versions_of_dagster_too(
    field: str, old: str, new: str, same_dagster: bool
) -> None:
    before = _described(_asset("1.12.1", **{field: old}))
    after = _described(_asset("1.12.1" if same_dagster else "1.12.2", **{field: new}))
    assert [change.change for change in compare(before, after).changes] == ["changed"]
    (line,) = (it for it in markdown(compare(before, after), 9) if f"{field}: " in it)
    one, other = line.partition(": ")[2].split(" -> ")
    assert one != other


@pytest.mark.parametrize("field", ["automation", "condition", "partitions"])
def test_how_dagster_writes_an_object_is_not_a_change(field: str) -> None:
    one, same, other = (
        _described(_asset(version, **{field: f"eager{values.DIGESTED}{text}"}))
        for version, text in (("1", "a"), ("1", "b"), ("2", "b"))
    )
    assert compare(one, same).changes
    assert not compare(one, other).changes


@pytest.mark.parametrize("same", [0, 5, 59, 60, 61, 79, 80, 81, 500])
@pytest.mark.parametrize("rest", [("", "a"), ("a", "b"), ("a", "b" * 200), ("a" * 99, "b" * 99)])
def test_two_texts_that_differ_are_shown_as_different(same: int, rest: tuple[str, str]) -> None:
    one, other = apart("x" * same + rest[0], "x" * same + rest[1], 80)
    assert one != other
    assert max(len(one), len(other)) <= 80


def test_a_code_location_that_does_not_load_is_an_error_next_to_another() -> None:
    found = merge({"a": Definitions({}, error="no such key"), "b": _described(_asset())})
    assert found.error == "a: no such key"
    assert merge({"a": Definitions({}), "b": Definitions({})}).error is None


def test_a_name_of_two_repositories_is_two_definitions() -> None:
    known: dict[str, Any] = {"j": {"tags": {}}, "k": {}}
    _add(known, {"j": {"tags": {"a": "b"}}, "k": {}}, SimpleNamespace(name="second"))
    assert known == {"j": {"tags": {}}, "k": {}, "j of second": {"tags": {"a": "b"}}}


def _held(*paths: str) -> Any:
    return SimpleNamespace(
        name="app.pex", state_directories=lambda: [SimpleNamespace(path=path) for path in paths]
    )


def test_what_is_loaded_has_the_same_name_in_each_artifact() -> None:
    one = _targets(_held("/app/src/shop/defs/.local_defs_state"))
    other = _targets(_held("lib/python3.12/site-packages/shop/defs/.local_defs_state"))
    assert one.keys() == other.keys() == {"shop/defs"}
    assert len(_targets(_held("a/shop/defs/@", "b/shop/defs/@"))) == 2
    with pytest.raises(UsageError, match="contains no states"):
        _targets(_held())


# --- size -----------------------------------------------------------------------------------


def test_a_computation_is_described_once_for_all_of_its_assets() -> None:
    """For each asset, Dagster would make the set of all of them again: minutes for 10,000."""

    class Made:
        asked = 0
        is_executable, can_subset = True, False
        node_def = SimpleNamespace(
            name="many", tags={}, retry_policy=None, input_defs=(), iterate_op_defs=lambda: iter(())
        )
        required_resource_keys: tuple[str, ...] = ()
        hook_defs: tuple[Any, ...] = ()
        keys_by_input_name: Mapping[str, Any] = {}
        resource_defs: Mapping[str, Any] = {}

        @property
        def asset_and_check_keys(self) -> set[str]:
            self.asked += 1
            return set("ab")

    made = Made()
    one, other = (describing._computation(made, {}) for _ in range(2))
    assert one == other
    assert one["made with"].startswith("2 #")
    assert made.asked == 1
