"""Airbyte with its own library, in the cloud and self-managed. About 20 s.

Every fault at every endpoint: ``make integrations``.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.integrations.airbyte import Airbyte, AirbyteCloud
from tests.support.integrations.running import cases_of, make_account, try_faults, trying
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
    Fault("401", "login"),
    Fault("403", "connections"),
    Fault("404", "workspace"),
    Fault("429", "connection"),
    Fault("500", "destination"),
    Fault("503", "login"),
    Fault("html", "connection"),
    Fault("cut", "connections"),
    Fault("empty", "connections"),
    Fault("missing-page", "connections"),
    Fault("empty-page", "connections"),
    Fault("same-page", "connections"),
    Fault("refused", "destination"),
    Fault("hanging", "connection"),
    Fault("dripping", "workspace"),
]
SELF_MANAGED = [Fault("401", "*"), Fault("503", "connection"), Fault("refused", "connections")]


def test_all_the_way(tmp_path: Path) -> None:
    good = Case("good", size=40)
    with AirbyteCloud(good) as airbyte:
        account = make_account(airbyte, tmp_path / "project")
        assert account.refresh(timeout=300) == {}
        assert not airbyte.unknown
    bundle = published(account.root)
    expected = airbyte.assets(good)
    assert len(expected) == 40 * 3
    pex = pex_of(account.root, bundle, tmp_path)
    assert assets_in_pex(pex, account.python, tmp_path, account.variables) == expected
    image = image_of(account.root, bundle, tmp_path)
    assert assets_in_image(image, account.python, account.variables) == expected
    assert b"canary" not in bytes_of(pex, image)
    assert "canary" not in "\n".join(account.listener.texts)


def test_every_kind_of_fault_in_the_cloud(tmp_path: Path) -> None:
    with AirbyteCloud(*cases_of(FAULTS, size=6)) as airbyte:
        account = make_account(airbyte, tmp_path / "project", timeout=20)
        verdicts = try_faults(account, FAULTS)
    assert not [verdict for verdict in verdicts if verdict.wrong]
    assert all(verdict.code for verdict in verdicts)


def test_a_self_managed_one_with_a_name_and_a_password(tmp_path: Path) -> None:
    with trying(Airbyte, Case("good", size=6), SELF_MANAGED, tmp_path) as tried:
        assert tried.wrong == []
        assert all(verdict.code for verdict in tried.verdicts)
        assert tried.missing_assets() == set()
        assert tried.leaks() == []
