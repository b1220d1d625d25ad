"""Tableau: its unmodified library against a stand-in of its API. All: ``make integrations``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.integrations.running import Tried, trying
from tests.support.integrations.standin import Case, Fault
from tests.support.integrations.tableau import Tableau

GOOD = Case("acme", size=150)
# Too many requests, until it has waited as long as the header says.
BUSY = Case("busy", "429", "workbooks", size=6, times=1)
FAULTS = (
    Fault("refused", "*"),
    Fault("503", "server-info"),
    Fault("hanging", "server-info"),
    Fault("401", "sign-in"),
    Fault("html", "sign-in"),
    Fault("429", "workbooks"),
    Fault("missing-page", "workbooks"),
    Fault("500", "metadata"),
    Fault("cut", "metadata"),
    Fault("empty", "metadata"),
    Fault("graphql-errors", "metadata"),
    Fault("graphql-warnings", "metadata"),
    Fault("unusable", "metadata"),
    Fault("dripping", "data-sources"),
    Fault("500", "sign-out"),
)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    with trying(Tableau, GOOD, FAULTS, tmp_path_factory.mktemp("tableau"), BUSY) as tried:
        yield tried


def test_every_fault_is_seen_for_what_it_is(tried: Tried) -> None:
    assert tried.wrong == []


def test_the_library_asks_only_for_what_tableau_has(tried: Tried) -> None:
    assert (tried.standin.unknown, tried.standin.strangers) == ([], set())
    called = tried.standin.called(GOOD.name)
    assert (called["metadata"], called["workbooks"], called["sign-out"]) == (150, 3, 1)


def test_every_asset_is_there_without_network(tried: Tried) -> None:
    assert tried.missing_assets() == set()


def test_no_secret_is_shown_or_shipped(tried: Tried) -> None:
    assert tried.leaks() == []


def test_a_warning_of_graphql_is_not_an_error(tried: Tried) -> None:
    codes = {verdict.fault.fault: verdict.code for verdict in tried.verdicts}
    assert (codes["graphql-warnings"], codes["graphql-errors"]) == (0, 65)


def test_a_rate_limit_is_waited_for_as_long_as_tableau_asks(tried: Tried) -> None:
    key = tried.standin.key(BUSY)
    assert tried.account.refresh(key) == {}
    assert tried.account.listener.took[key] > 1  # Retry-After
    assert "answered 429 and asked to wait 1 s" in " ".join(tried.account.listener.texts)
