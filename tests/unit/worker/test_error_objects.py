"""`bundler.worker.error_objects`: what only reports an error, and what is data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.worker.error_objects import error_in

ROWS = [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"error": {"code": 503, "message": "unavailable", "status": "UNAVAILABLE"}}, 503),
        ({"error": {"code": "InternalServerError", "message": "…"}}, None),
        ({"error": {"errors": [{"domain": "global"}], "code": 403, "message": "no"}}, 403),
        ({"error": "no such report"}, None),
        ({"error": "invalid_token", "error_description": "expired"}, 401),
        ({"error": True, "message": "x"}, None),
        ({"error": 404}, 404),
        ({"status": {"code": 404, "is_success": False, "user_message": "x"}, "data": None}, 404),
        ({"Error": {"Code": "SlowDown"}}, None),
        ({"odata.error": {"code": "x", "message": {"value": "y"}}}, None),
        ({"jsonrpc": "2.0", "id": 7, "error": {"code": -32603, "message": "x"}}, None),
        ({"apiVersion": "2.0", "error": {"code": 500}}, 500),
        ({"errors": [{"title": "broken", "status": "502"}]}, 502),
        ({"errors": {"base": ["x"]}, "items": [], "total": 0}, None),
        ({"errors": "x", "data": None}, None),
        ({"fault": {"faultstring": "x", "detail": {"errorcode": "y"}}}, None),
        ({"timestamp": "…", "status": 500, "error": "Internal Server Error", "path": "/x"}, 500),
        ({"message": "upstream", "code": 502}, 502),
        ({"statusCode": 503, "message": "x"}, 503),
        ({"code": "ServiceUnavailable", "message": "x"}, None),
        ({"errorCode": "E1", "errorMessage": "x"}, None),
        ({"errorMessage": "x", "errorType": "KeyError", "stackTrace": ["…"]}, None),
        ({"__type": "ThrottlingException", "message": "x"}, None),
        ({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "x"}, None),
        ({"status": "error", "message": "x"}, None),
        ({"status": "FAIL", "data": None}, None),
        ({"success": False}, None),
        ({"success": False, "message": "x", "result": []}, None),
        ({"ok": False, "error": "invalid_auth"}, 401),
        ({"message": "Service temporarily unavailable"}, None),
        ({"message": "Rate limit exceeded", "documentation_url": "https://x"}, None),
        ({"detail": "Not authenticated"}, None),
        ([{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "x"}], None),
    ],
)
def test_what_only_reports_an_error_is_one(document: Any, status: int | None) -> None:
    assert error_in(document) == ("error-object", status)


def test_graphql_answers_with_errors_next_to_its_data() -> None:
    assert error_in({"data": {"a": 1}, "errors": [{"message": "x"}]}) == ("graphql-errors", None)
    warning = {"message": "x", "extensions": {"severity": "WARNING"}}
    assert error_in({"data": {"a": 1}, "errors": [warning]}) is None
    assert error_in({"data": {"a": 1}, "errors": [{"message": "x", "extensions": []}]}) is not None
    batch = [{"data": {"a": 1}}, {"data": None, "errors": [{"message": "x"}]}]
    assert error_in(batch) == ("graphql-errors", None)
    assert error_in([*batch, {"id": 1}]) is None


@pytest.mark.parametrize(
    "document",
    [
        {"error": None, "items": ROWS},
        {"error": None},
        {"error": "", "errors": [], "result": ROWS},
        {"errors": []},
        {"error": False, "message": "fine"},
        {"status": {"code": 200, "is_success": True, "user_message": "x"}, "data": None},
        {"status": {"code": 400, "is_success": False}, "data": ROWS},
        {"status": {"ok": False, "connectors": ROWS}},
        {"status": {"status": "failed", "jobs": ROWS}},
        {"status": {"status": {"ok": False}}},
        {"error": 0.02, "mean": 1.5},
        {"error": 17},
        {"error": "shard 3 is late", "items": ROWS},
        {"errors": [{"id": 1}], "total": 1, "page": 1},
        {"id": 7, "name": "job", "status": "failed", "error": {"code": 503}},
        {"job": {"state": "failed", "error": {"code": 503}}},
        [{"id": 1, "error": "none"}, {"id": 2, "error": "E7"}],
        [{"error": "x"}, {"error": "y"}],
        [],
        {},
        [{"code": 404, "label": "Not found"}],
        {"code": 500, "description": "Office supplies"},
        {"code": "EUR", "message": "Euro"},
        {"code": 0, "message": "ok", "data": ROWS},
        {"status": "ok", "message": "all errors are fixed"},
        {"status": "success", "data": ROWS},
        {"status": "error", "data": ROWS},
        {"status": 200, "message": "fine"},
        {"success": True, "errors": []},
        {"success": False, "data": ROWS},
        {"message": "pong"},
        {"version": 3, "description": "error budgets"},
        {"errorBudget": 4, "errorRate": 0.1},
        {"404": "not found", "500": "server error"},
        "error",
        None,
        503,
    ],
)
def test_data_is_data(document: Any) -> None:
    assert error_in(document) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "errors", "code", "status", "message", "data", "ok", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_nothing_surprises_it(document: Any) -> None:
    error_in(document)


@given(JSON)
def test_what_has_a_member_of_another_name_is_data(document: Any) -> None:
    if isinstance(document, dict) and "data" not in document:
        assert error_in({**document, "rows": ROWS}) is None


def test_errors_inside_errors_are_followed_for_a_while() -> None:
    document: Any = {"code": 503}
    for _ in range(800):
        document = {"error": document}
    assert error_in(document) == ("error-object", None)
