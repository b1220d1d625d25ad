"""`bundler.refresh.vendors`, and pages that nobody asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundler.refresh.model import Component
from bundler.refresh.outcome.exchanges import report_of
from bundler.refresh.vendors import Expected, kind_of, lost, notes
from tests.unit.refresh.test_exchanges import request, response

NORMAL = Expected("GET api.example.com/v1/connectors/*/schemas 404", "it was never synced")
BASE = "https://api.example.com:443/v1/connectors"


def _missing(*names: str) -> list[dict[str, object]]:
    events = []
    for number, name in enumerate(names):
        events += [request(number, f"{BASE}/{name}/schemas"), response(number, 404)]
    return events


def test_a_normal_failure_is_reported_and_returns_none() -> None:
    report = report_of(_missing("a", "b"), [NORMAL.pattern])
    assert report.failed == ()
    assert list(notes(report.expected, [NORMAL], [])) == [
        f"2 times {NORMAL.pattern}: it was never synced"
    ]
    assert list(notes(report.expected, [NORMAL], ["GET * 404"])) == []


def test_what_a_library_says_of_a_normal_failure_is_not_another_one() -> None:
    skipped = {"event": "body", "id": 0, "fault": "skipped", "code": None}
    (exchange,) = report_of([*_missing("a"), skipped], [NORMAL.pattern]).expected
    assert exchange.body == ""


def test_what_a_library_omits_from_an_expected_response_is_expected() -> None:
    body = {"event": "body", "id": 0, "code": None}
    page = [request(0, BASE), response(0, 200), {**body, "fault": "html"}]
    skipped = {**body, "fault": "skipped"}
    assert report_of([*page, skipped], ["GET /v1/connectors html"]).failed == ()
    assert report_of([*page[:2], skipped], ["GET /v1/connectors html"]).failed != ()


@pytest.mark.parametrize(
    ("kinds", "like", "has_whole_pages"),
    [
        (["dagster_shop.Projects", "dagster_dbt.DbtProjectComponent"], "dagster_dbt.*", True),
        (["shop.Account", "dagster_fivetran.FivetranAccountComponent"], "dagster_fivetran.*", True),
        (["dagster_databricks.DatabricksWorkspaceComponent"], "dagster_databricks.*", True),
        (["dagster_shop.Catalog", "dagster.StateBackedComponent"], "*", False),
    ],
)
def test_a_projects_own_package_is_not_an_integration(
    kinds: list[str], like: str, has_whole_pages: bool
) -> None:
    kind = kind_of(Component("key", "LOCAL_FILESYSTEM", kinds[0], ancestors=tuple(kinds[1:])))
    assert (kind.pattern, kind.whole_pages) == (like, has_whole_pages)


def test_what_the_last_state_had_is_lost(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text(json.dumps({"connectors": {"b": {}, "ab": {}}}))
    report = report_of(_missing("a", "b"), [NORMAL.pattern])
    found = lost(report.expected, [NORMAL], [], state)
    assert found is not None
    assert found.url == f"{BASE}/b/schemas"
    assert lost(report.expected, [NORMAL], ["GET /v1/* 404"], state) is None
    assert lost(report.expected[:1], [NORMAL], [], state) is None
    assert lost(report.expected, [NORMAL], [], tmp_path / "none") is None


def test_it_is_found_across_the_pieces_in_which_a_state_is_read(tmp_path: Path) -> None:
    state = tmp_path / "state"
    name = "n" * 40
    state.write_text("x" * (1024 * 1024 - 20) + f'"{name}"' + "x" * 100)
    report = report_of(_missing(name), [NORMAL.pattern])
    assert lost(report.expected, [NORMAL], [], state) is not None


def test_a_page_that_was_not_asked_for() -> None:
    first = [request(1, BASE), response(1, 200), {"event": "more", "id": 1}]
    (exchange,) = report_of(first).unfollowed
    assert exchange.body == "more"
    assert report_of([*first, {"event": "followed", "id": 1}]).unfollowed == ()
    assert report_of(first, ["GET /v1/connectors more"]).unfollowed == ()
