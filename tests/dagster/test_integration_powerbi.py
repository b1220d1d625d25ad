"""Power BI: its unmodified library against its two hosts' stand-in; all: ``make integrations``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.project.survey import survey
from bundler.setup.doctor import DoctorContext, contents
from tests.support.integrations.powerbi import PowerBI
from tests.support.integrations.running import Tried, make_account, trying
from tests.support.integrations.standin import Case, Fault
from tests.support.integrations.ways import through_layout

GOOD = Case("acme", size=300)
# Without the administrators' scan: a request for each dashboard and each semantic model.
ONE_BY_ONE = Case("one-by-one", size=40)
FAULTS = (
    Fault("refused", "*"),
    Fault("401", "login"),
    Fault("403", "scan"),
    Fault("429", "scan"),
    Fault("cut", "scan-result"),
    Fault("empty", "scan-result"),
    Fault("hanging", "scan-status"),
    Fault("404", "tiles"),
    Fault("empty", "tiles"),
    Fault("html", "reports"),
    Fault("more", "reports"),
    Fault("dripping", "datasets"),
    Fault("500", "data-sources"),
)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    with trying(PowerBI, GOOD, FAULTS, tmp_path_factory.mktemp("powerbi"), ONE_BY_ONE) as tried:
        yield tried


def test_every_fault_is_seen_for_what_it_is(tried: Tried) -> None:
    assert tried.wrong == []


def test_the_library_asks_only_for_what_power_bi_has(tried: Tried) -> None:
    assert (tried.standin.unknown, tried.standin.strangers) == ([], set())
    assert tried.standin.called(GOOD.name)["scan-status"] == 3
    assert tried.standin.called(ONE_BY_ONE.name)["data-sources"] == 40


def test_every_asset_is_there_without_network(tried: Tried) -> None:
    assert tried.missing_assets() == set()


def test_an_image_has_every_asset(tmp_path: Path) -> None:
    """The state goes through an OCI layout; code that had none is loaded with it."""
    case = Case("acme", size=20)
    with PowerBI(case) as standin:
        account = make_account(standin, tmp_path / "project")
        loaded = through_layout(account, tmp_path)
    assert standin.assets(case) - loaded == set()


def test_no_secret_is_shown_or_shipped(tried: Tried) -> None:
    assert tried.leaks() == []


def test_doctor_reports_what_expressions_contain(tried: Tried) -> None:
    key = tried.standin.key(GOOD)
    findings = contents.contents(DoctorContext(survey(tried.account.root), tried.account.python))
    (finding,) = [one for one in findings if one.what.startswith(key)]
    assert finding.grade == "warn"
    assert finding.what.startswith(f"{key} contains 1 password or token, 1 e-mail address, ")
    assert "canary" not in repr(finding)
