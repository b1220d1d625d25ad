"""Which removals are refused: counts, shares, by kind and by key."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pytest

from bundler.project.options import KeyOptions, RefreshOptions
from bundler.refresh.removals import allowed_names, refused, removals
from bundler.state.definitions import Definitions

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


@pytest.mark.parametrize(
    ("allowed", "passes"),
    [
        ((_KEY,), True), (("Feed[*",), True), (("a", "b"), True), (("a",), False),
        (("Feed",), False), (("*",), True), ((), False),
    ],
)  # fmt: skip
def test_a_yes_names_the_key_or_all_that_goes(allowed: tuple[str, ...], passes: bool) -> None:
    found = removals(_made(assets="abc"), _made(assets="c"), _limited(*allowed, assets="0"))
    assert (not refused(found)) is passes
    assert allowed_names(found, _KEY) == (("a", "b") if passes else ())


@pytest.mark.parametrize("key", [_KEY, "it's", "a b", "$HOME", "plain"])
def test_the_printed_option_names_the_key_in_a_shell(key: str) -> None:
    found = removals(_made(key, assets="ab"), _made(key), _limited(assets="0"))
    (error,) = refused(found)
    assert shlex.split(error.hint.removesuffix("."))[-2:] == ["--allow-removed", key]
