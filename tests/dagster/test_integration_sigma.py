"""Sigma: its unmodified library against a stand-in of its API. All: ``make integrations``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.integrations.running import Tried, trying
from tests.support.integrations.sigma import Sigma
from tests.support.integrations.standin import Case, Fault

GOOD = Case("acme", size=30)
FAULTS = (
    Fault("refused", "*"),
    Fault("403", "login"),
    Fault("empty-page", "tables"),
    Fault("missing-page", "workbooks"),
    Fault("dripping", "pages"),
    Fault("html", "elements"),
    Fault("500", "lineage"),
    Fault("404", "lineage"),
    Fault("empty", "columns"),
    Fault("more", "columns"),
    Fault("cut", "queries"),
    Fault("503", "schedules"),
    Fault("hanging", "datasets"),
)
# With the library's own `warn_on_lineage_fetch_error`.
LENIENT = (
    Case("lenient-404", "404", "lineage", size=6),
    Case("lenient-500", "500", "lineage", size=6),
)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    with trying(Sigma, GOOD, FAULTS, tmp_path_factory.mktemp("sigma"), *LENIENT) as tried:
        yield tried


def test_every_fault_is_seen_for_what_it_is(tried: Tried) -> None:
    assert tried.wrong == []


def test_the_library_asks_only_for_what_sigma_has(tried: Tried) -> None:
    assert (tried.standin.unknown, tried.standin.strangers) == ([], set())
    called = tried.standin.called(GOOD.name)
    assert (called["lineage"], called["columns"], called["tables"]) == (60, 60, 3)


def test_every_asset_is_there_without_network(tried: Tried) -> None:
    assert tried.missing_assets() == set()


def test_no_secret_is_shown_or_shipped(tried: Tried) -> None:
    assert tried.leaks() == []


def test_lineage_that_does_not_exist_passes_where_the_project_says_so(tried: Tried) -> None:
    keys = [tried.standin.key(case) for case in LENIENT]
    failures = tried.account.refresh(*keys)
    # Allowed is the request; the missing lineage is noticed by comparison with the last state.
    assert failures[keys[0]].exit_code == 65
    assert "`dependencies`" in failures[keys[0]].what or "`edges`" in failures[keys[0]].what
    assert failures[keys[1]].exit_code == 69
