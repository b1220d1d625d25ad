"""One rule for the age of a state in every command."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.state.age import age_problem, span
from bundler.state.manifest import KeyRefresh
from bundler.system.times import CLOCK_SKEW_SECONDS

_NOW = 1_800_000_000


def _problem(age: int, most: float) -> str | None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_NOW - age))
    return age_problem(KeyRefresh("Shop", confirmed=moment), most, _NOW)


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**9))
def test_a_state_is_young_enough_between_the_skew_and_the_most(age: int, most: int) -> None:
    assert (_problem(age, most) is None) == (-CLOCK_SKEW_SECONDS <= age <= most)


@pytest.mark.parametrize(
    "moment",
    [
        *("2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "soon"),
        *("2026-01-01T00:00:00+00:00", "2026-01-01"),
    ],
)
def test_a_time_that_no_calendar_or_another_form_has_is_refused(moment: str) -> None:
    for times in ({"fetched": moment}, {"confirmed": moment}):
        with pytest.raises(ValueError, match=r"day|month|isoformat|form of"):
            KeyRefresh("Shop", **times)


def test_an_age_that_is_not_recorded_is_unknown() -> None:
    assert age_problem(None, 1e12, _NOW) == age_problem(KeyRefresh("Shop"), 1e12, _NOW)


def test_lengths_of_time_are_words() -> None:
    assert [span(n) for n in (1, 119, 380, 90_000, 345_600)] == [
        "1 second", "119 seconds", "6.3 minutes", "25 hours", "4 days",
    ]  # fmt: skip
