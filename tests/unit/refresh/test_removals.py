"""Which removals are refused: counts, shares, by kind and by key."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from bundler.project.options import KeyOptions, RefreshOptions
from bundler.refresh.directories import Directory
from bundler.refresh.removals import (
    allowed_keys,
    allowed_names,
    counts_assets,
    refused,
    removals,
    vanished,
)
from bundler.state.definitions import Definitions
from bundler.state.manifest import DirectoryRefresh, KeyRefresh
from bundler.state.statedir import StateDir
from tests.support.statedirs import fill

_KEY = "Feed[main]"


def _made(key: str = _KEY, **kinds: Sequence[str]) -> Definitions:
    return Definitions(
        {kind: {name: {} for name in names} for kind, names in kinds.items()},
        {key: {kind: list(names) for kind, names in kinds.items()}},
    )


def _limited(*allowed: str, pattern: str | None = None, **limits: str) -> RefreshOptions:
    options = KeyOptions(max_removed=limits)
    if pattern is not None:
        return RefreshOptions(per_key={pattern: options}, allow_removed=allowed)
    return RefreshOptions(defaults=options, allow_removed=allowed)


@pytest.mark.parametrize(
    ("limit", "removed", "is_refused"),
    [
        ("0", 0, False), ("0", 1, True), ("3", 3, False), ("3", 4, True), ("100", 10, False),
        ("20%", 2, False), ("20%", 3, True), ("25%", 2, False), ("0%", 1, True),
        ("100%", 10, False),
    ],
)  # fmt: skip
def test_a_count_and_a_share(limit: str, removed: int, is_refused: bool) -> None:
    names = "abcdefghij"
    found = removals(_made(assets=names), _made(assets=names[removed:]), _limited(assets=limit))
    assert bool(refused(found)) is is_refused


def test_the_refusal_lists_what_would_go() -> None:
    names = [f"asset_{n:02}" for n in range(15)]
    (error,) = refused(
        removals(_made(assets=names), _made(assets=names[13:]), _limited(assets="20%"))
    )
    assert error.exit_code == 65
    assert error.key == _KEY
    assert "13 of 15 assets would be removed, more than max-removed = 20% allows: asset_00," in (
        error.what
    )
    assert error.what.endswith("asset_09 and 3 more.")


def test_by_kind_and_by_key() -> None:
    before = _made(assets="abc", jobs=["nightly"], schedules=["hourly"])
    after = _made(assets="a")
    (one,) = refused(removals(before, after, _limited(assets="2", jobs="0")))
    assert "1 of 1 jobs would be removed" in one.what
    assert refused(removals(before, after, _limited(pattern="Other[*", assets="0"))) == []
    assert len(refused(removals(before, after, _limited(pattern="Feed[*", assets="0")))) == 1
    assert refused(removals(before, after, RefreshOptions())) == []


def test_what_another_key_makes_now_is_not_removed() -> None:
    moved = _made("Feed[other]", assets="abc")
    assert removals(_made(assets="abc"), moved, _limited(assets="0")) == ()


def test_what_the_code_renames_is_removed_only_if_no_key_makes_it() -> None:
    def renamed(*names: str) -> Definitions:
        made = _made(assets=names, jobs=names)
        return Definitions({"assets": {f"p/{name}": {} for name in names}, "jobs": {}}, made.keys)

    limits = _limited(assets="0", jobs="0")
    assert removals(renamed("a", "b"), renamed("a", "b", "c"), limits) == ()
    found = removals(renamed("a", "b"), renamed("a"), limits)
    assert [(it.kind, it.names) for it in found] == [("assets", ("b",)), ("jobs", ("b",))]
    assert len(refused(found)) == 2


@pytest.mark.parametrize(
    ("limits", "is_refused"),
    [
        ({"assets": "0"}, True), ({"assets": "100%"}, True), ({"jobs": "0"}, True),
        ({"jobs": "0", "schedules": "5"}, True), ({"resources": "100%"}, True), ({}, False),
    ],
)  # fmt: skip
def test_a_key_without_a_component_needs_approval_with_any_limit(
    limits: dict[str, str], is_refused: bool
) -> None:
    for pattern in (None, "Feed[*"):
        assert (
            bool(refused(vanished([_KEY], (), (), _limited(pattern=pattern, **limits))))
            is is_refused
        )
        assert not refused(vanished([_KEY], (), (), _limited(_KEY, pattern=pattern, **limits)))
    assert not refused(vanished([_KEY], (), (), _limited(pattern="Other[*", **limits)))


@pytest.mark.parametrize(
    ("limits", "before", "counts"),
    [
        ({"assets": "0"}, _made(assets="a"), True),
        ({"assets": "20%", "jobs": "0"}, _made(assets="a", jobs="j"), True),
        ({"jobs": "0"}, _made(assets="a", jobs="j"), False),
        ({}, _made(assets="a"), False),
        ({"assets": "0"}, _made(assets="", jobs="j"), False),
        ({"assets": "0"}, _made("Feed[other]", assets="a"), False),
        ({"assets": "0"}, Definitions({"assets": {"a": {}}}), False),
    ],
)
def test_the_shrink_check_is_off_only_if_the_assets_are_limited_and_were_counted(
    limits: dict[str, str], before: Definitions, counts: bool
) -> None:
    assert counts_assets(before, _KEY, _limited(**limits)) is counts


@pytest.mark.parametrize(
    ("allowed", "passes"),
    [
        ((_KEY,), True), (("Feed[*",), True), (("a", "b"), True), (("a",), False),
        (("Feed",), False), (("*",), True), ((), False),
    ],
)  # fmt: skip
def test_an_approval_names_the_key_or_everything_that_is_removed(
    allowed: tuple[str, ...], passes: bool
) -> None:
    found = removals(_made(assets="abc"), _made(assets="c"), _limited(*allowed, assets="0"))
    assert (not refused(found)) is passes
    assert allowed_names(found, _KEY) == (("a", "b") if passes else ())


@pytest.mark.parametrize(
    ("limit", "allowed", "recorded"),
    [("0", (_KEY,), (_KEY,)), ("0", (), ()), ("0", ("Other",), ()), (None, (_KEY,), ())],
)
def test_the_record_names_the_keys_whose_removal_was_approved(
    limit: str | None, allowed: tuple[str, ...], recorded: tuple[str, ...]
) -> None:
    limits = {} if limit is None else {"assets": limit}
    assert allowed_keys(vanished([_KEY], (), (), _limited(*allowed, **limits))) == recorded
    # Of a key that has a component, the record names the definitions.
    assert allowed_keys(removals(_made(assets="a"), _made(), _limited(_KEY, assets="0"))) == ()


@pytest.mark.parametrize(("fetches", "recorded"), [(False, ("Gone",)), (True, ())])
def test_a_removed_key_stays_in_the_record_until_the_next_fetch(
    fetches: bool, recorded: tuple[str, ...], tmp_path: Path
) -> None:
    """A build with ``--refresh never`` ships the states, and the record of how they were made."""
    statedir = StateDir(tmp_path, "states")
    known = KeyRefresh(_KEY, fetched="2026-01-01T00:00:00Z")
    refresh = DirectoryRefresh("states", (known,), removed_keys=("Gone",))
    with statedir.staging() as staging:
        staging.publish(fill(staging, {_KEY: {"state": "1"}}), (), refresh)
    directory = Directory(statedir, RefreshOptions())
    asyncio.run(directory.read_baselines(statedir))
    directory.refreshes[_KEY] = KeyRefresh(_KEY, attempts=1) if fetches else known
    assert directory.record == {_KEY: known}
    assert directory._refresh().removed_keys == recorded


@pytest.mark.parametrize("key", [_KEY, "it's", "a b", "$HOME", "plain"])
def test_the_printed_option_names_the_key_in_a_shell(key: str) -> None:
    found = removals(_made(key, assets="ab"), _made(key), _limited(assets="0"))
    (error,) = refused(found)
    assert shlex.split(error.hint.removesuffix("."))[-2:] == ["--allow-removed", key]
