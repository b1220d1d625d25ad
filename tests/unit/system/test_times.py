"""The time that a record has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.errors import ConfigurationError
from bundler.system import times


@pytest.mark.parametrize("epoch", ["0", "1700000000", "253402300799"])
def test_the_time_that_the_environment_sets(epoch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert times.seconds_of(times.reproducible_now()) == int(epoch)


def test_an_empty_one_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    assert times.seconds_of(times.reproducible_now()) > 1_700_000_000


@pytest.mark.parametrize(
    "epoch", ["now", "-1", "1.5", "253402300800", "9" * 5000, "0" * 20 + "9" * 13]
)
def test_an_invalid_time_is_refused(epoch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines refuse such an image, and a time of now would not be reproducible."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(ConfigurationError, match="is not a time"):
        times.reproducible_now()


@given(st.integers(-(2**33), 2**37))
def test_a_time_survives_being_written(seconds: int) -> None:
    assert times.seconds_of(times.rfc3339(seconds)) == seconds


@pytest.mark.parametrize(
    "moment",
    [
        *("", "Z", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02 03:04:05Z"),
        *("2026-1-2T03:04:05Z", "2026-01-02T03:04Z", "2026-01-02T03:04:05.0Z"),
        *("2026-01-02T03:04:05.500000Z", "2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05ZZ"),
        *("2026-13-02T03:04:05Z", "2026-02-30T03:04:05Z", "2026-01-02T24:00:00Z"),
    ],
)
def test_any_other_form_is_refused(moment: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        times.seconds_of(moment)
