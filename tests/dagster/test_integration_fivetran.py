"""Fivetran with its own library: all the way into artifacts, and a fault of each kind. About 20 s.

Every fault at every endpoint: ``make integrations``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.integrations.fivetran import Fivetran
from tests.support.integrations.running import Account, cases_of, make_account, try_faults
from tests.support.integrations.shipping import (
    assets_in_image,
    assets_in_pex,
    bytes_of,
    image_of,
    pex_of,
    published,
)
from tests.support.integrations.standin import Case, Fault

FAULTS = [
    Fault("401", "groups"),
    Fault("403", "connectors"),
    Fault("404", "destination"),
    Fault("404", "schemas"),
    Fault("429", "schemas"),
    Fault("500", "destination"),
    Fault("503", "schemas"),
    Fault("html", "schemas"),
    Fault("cut", "connectors"),
    Fault("empty", "schemas"),
    Fault("no-schemas", "schemas"),
    Fault("empty", "connectors"),
    Fault("refused", "groups"),
    Fault("hanging", "schemas"),
    Fault("dripping", "destination"),
]
GOOD = Case("good", size=40)
LIMIT = "DAGSTER_FIVETRAN_LIST_CONNECTIONS_FOR_GROUP_INDIVIDUAL_REQUEST_LIMIT"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account of forty connections, refreshed."""
    with Fivetran(GOOD) as fivetran:
        account = make_account(fivetran, tmp_path_factory.mktemp("fivetran") / "project")
        assert account.refresh(timeout=300) == {}
        assert not fivetran.unknown
        yield account


def test_all_the_way(account: Account, tmp_path: Path) -> None:
    expected = account.standin.assets(GOOD)
    assert len(expected) == 36 * 3
    bundle = published(account.root)
    pex = pex_of(account.root, bundle, tmp_path)
    assert assets_in_pex(pex, account.python, tmp_path, account.variables) == expected
    image = image_of(account.root, bundle, tmp_path)
    assert assets_in_image(image, account.python, account.variables) == expected
    assert b"canary" not in bytes_of(pex, image)
    assert "canary" not in "\n".join(account.listener.texts)


def test_connections_that_were_never_synced_are_normal_and_reported(account: Account) -> None:
    (line,) = [
        text for text in account.listener.texts if "/schemas" in text and "never synced" in text
    ]
    assert "2 times GET api.fivetran.com/v1/connectors/*/schemas 404" in line


def test_pages_that_the_library_does_not_ask_for_are_no_success(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = account.digests()
    monkeypatch.setenv(LIMIT, "5")
    (failure,) = account.refresh().values()
    assert failure.exit_code == 65
    assert "api.fivetran.com:443 reported further pages" in failure.what
    assert 'allow-http = ["GET /v1/groups/group_2/connectors more"]' in failure.hint
    assert account.digests() == before


def test_every_kind_of_fault(tmp_path: Path) -> None:
    with Fivetran(*cases_of(FAULTS, size=6)) as fivetran:
        account = make_account(fivetran, tmp_path / "project", timeout=20)
        verdicts = try_faults(account, FAULTS)
    assert not [verdict for verdict in verdicts if verdict.wrong]
    assert all(verdict.code for verdict in verdicts)
    (lost,) = [
        one for one in verdicts if (one.fault.fault, one.fault.endpoint) == ("404", "schemas")
    ]
    assert "although the last state has it" in lost.what
