"""The time that a record has."""

from __future__ import annotations

import pytest

from bundler.errors import ConfigurationError
from bundler.system import times


@pytest.mark.parametrize("epoch", ["0", "1700000000", "253402300799"])
def test_the_time_that_the_environment_sets(epoch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert times.seconds_of(times.reproducible_now()) == int(epoch)


def test_an_empty_one_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    assert times.seconds_of(times.reproducible_now()) > 1_700_000_000


@pytest.mark.parametrize("epoch", ["now", "-1", "1.5", "253402300800", "9" * 5000])
def test_what_is_no_time_is_refused(epoch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines refuse such an image, and a time of now would not be reproducible."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(ConfigurationError, match="is not a time"):
        times.reproducible_now()
