"""dbt Cloud: its unmodified library against a stand-in of its API. All: ``make integrations``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bundler.project.projects import open_project
from bundler.refresh.reach import look
from tests.support.integrations.dbtcloud import DbtCloud
from tests.support.integrations.running import Tried, trying
from tests.support.integrations.standin import Case, Fault

GOOD = Case("acme", size=30)
FAULTS = (
    Fault("refused", "*"),
    Fault("401", "jobs"),
    Fault("empty-page", "jobs"),
    Fault("missing-page", "jobs"),
    Fault("404", "create"),  # a wrong project_id or environment_id
    Fault("429", "trigger"),
    Fault("failed", "run"),
    Fault("queued", "run"),  # until the key's deadline: the library would wait longer
    Fault("refused-inside", "run"),
    Fault("404", "manifest"),
    Fault("html", "manifest"),
    Fault("cut", "manifest"),
    Fault("empty", "manifest"),
    Fault("without-models", "manifest"),
    Fault("half", "manifest"),
    Fault("another-project", "manifest"),
)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    with trying(DbtCloud, GOOD, FAULTS, tmp_path_factory.mktemp("dbt-cloud")) as tried:
        yield tried


def test_every_fault_is_seen_for_what_it_is(tried: Tried) -> None:
    assert tried.wrong == []
    assert all(verdict.code for verdict in tried.verdicts)


def test_a_run_that_failed_is_named(tried: Tried) -> None:
    (failed,) = (one for one in tried.verdicts if one.fault.fault == "failed")
    assert "the run 70403110257795 in dbt Cloud failed or was cancelled" in failed.what
    key = tried.standin.key(tried.standin.cases["failed-at-run"])
    assert not [word for word in tried.account.listener.texts if word.startswith(f"{key} |")]


def test_another_refresh_takes_the_same_job_and_changes_nothing(tried: Tried) -> None:
    before = tried.account.digests()
    assert tried.account.refresh(tried.standin.key(GOOD)) == {}
    assert tried.account.digests() == before
    made = tried.standin.made[GOOD.name]
    assert (len(made["jobs"]), len(made["runs"])) == (1, 2)
    assert (tried.standin.unknown, tried.standin.strangers) == ([], set())


def test_every_asset_is_there_without_network(tried: Tried) -> None:
    assert tried.missing_assets() == set()


def test_no_secret_is_shown_or_shipped(tried: Tried) -> None:
    assert tried.leaks() == []


def test_the_system_is_reached_without_a_run(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in tried.account.variables.items():
        monkeypatch.setenv(name, value)
    before = tried.standin.called()
    looked = look([open_project(tried.account.root, python=tried.account.python)])
    found = {reached.key: reached for reached in looked.reached}
    assert found[tried.standin.key(GOOD)].hosts == ("acme.us1.dbt.com:443",)
    refused = found[tried.standin.key(tried.standin.cases["401-at-jobs"])].failure
    assert refused is not None
    assert (refused.exit_code, "DBT_CLOUD_TOKEN" in refused.hint) == (77, True)
    assert set(tried.standin.called() - before) == {"jobs"}
