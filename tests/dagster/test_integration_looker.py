"""Looker: its unmodified library against a stand-in of its API. All: ``make integrations``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.integrations.looker import Looker
from tests.support.integrations.running import Tried, make_account, trying
from tests.support.integrations.standin import Case, Fault
from tests.support.integrations.ways import through_thin_pex

GOOD = Case("acme", size=300)
FAULTS = (
    Fault("refused", "*"),
    Fault("401", "login"),
    Fault("429", "dashboards"),
    Fault("cut", "dashboard"),
    Fault("hanging", "models"),
    Fault("empty", "models"),
    Fault("500", "explore"),
    Fault("html", "explore"),
    Fault("404", "explore"),
    Fault("dripping", "explore"),
    Fault("unusable", "explore"),
    Fault("empty", "users"),
    Fault("503", "users"),
)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    with trying(Looker, GOOD, FAULTS, tmp_path_factory.mktemp("looker")) as tried:
        yield tried


def test_every_fault_is_seen_for_what_it_is(tried: Tried) -> None:
    assert tried.wrong == []


def test_the_library_asks_only_for_what_looker_has(tried: Tried) -> None:
    assert (tried.standin.unknown, tried.standin.strangers) == ([], set())
    called = tried.standin.called(GOOD.name)
    assert (called["dashboard"], called["explore"], called["users"]) == (270, 300, 1)


def test_every_asset_is_there_without_network(tried: Tried) -> None:
    assert tried.missing_assets() == set()


def test_no_secret_is_shown_or_shipped(tried: Tried) -> None:
    assert tried.leaks() == []


def test_a_pex_has_every_asset(tmp_path: Path) -> None:
    case = Case("acme", size=20)
    with Looker(case) as standin:
        account = make_account(standin, tmp_path / "project")
        loaded = through_thin_pex(account, tmp_path)
    assert standin.assets(case) - loaded == set()
