"""`bundler.refresh.outcome.exchanges`: which failed requests count, from the events of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundler.refresh.outcome.exchanges import Exchange, Report, is_expected, read, report_of


def request(number: int, url: str, same: str | None = None, method: str = "GET") -> dict[str, Any]:
    return {"event": "request", "id": number, "method": method, "url": url, "same": same or url}


def response(number: int, status: int, **more: Any) -> dict[str, Any]:
    fixed = {
        "type": "application/json",
        "retry_after": None,
        "date": None,
        "tries": 1,
        "size": None,
    }
    return {"event": "response", "id": number, "status": status, **fixed, **more}


def failure(number: int, name: str = "builtins.ConnectionResetError") -> dict[str, Any]:
    link = {
        "type": name,
        "names": [name.rpartition(".")[2]],
        "errno": None,
        "status": None,
        "text": "",
        "where": "",
        "wire": number,
    }
    return {"event": "failure", "id": number, "chain": [link], "tries": 1, "abandoned": False}


def failed(*events: dict[str, Any], allowed: tuple[str, ...] = ()) -> list[str]:
    return [exchange.url for exchange in report_of(events, allowed).failed]


A, B = "http://host:80/a", "http://host:80/b"


def test_a_failed_request_counts_unless_the_same_one_succeeds_later() -> None:
    assert failed(request(1, A), response(1, 500)) == [A]
    assert failed(request(1, A), response(1, 500), request(2, A), response(2, 200)) == []
    assert failed(request(1, A), failure(1), request(2, A), response(2, 200)) == []
    assert failed(request(1, A), response(1, 200), request(2, A), response(2, 500)) == [A]
    assert failed(request(1, A), response(1, 500), request(2, B), response(2, 200)) == [A]


def test_a_body_that_breaks_off_makes_a_good_answer_a_failure() -> None:
    assert failed(request(1, A), response(1, 200), failure(1)) == [A]


def test_a_body_may_break_off_while_later_exchanges_are_answered() -> None:
    events = (request(1, A), response(1, 200), request(2, B), response(2, 200), failure(1))
    assert failed(*events) == [A]


def not_json(number: int, size: int) -> dict[str, Any]:
    return {"event": "not-json", "id": number, "size": size}


def test_what_could_not_be_parsed_is_a_failure_of_the_exchange_that_it_came_from() -> None:
    events = (request(1, A), response(1, 200), request(2, B), response(2, 200), not_json(1, 50))
    (exchange,) = report_of(events).failed
    assert (exchange.url, exchange.status, exchange.body) == (A, 200, "not-json")
    assert failed(*events, request(3, A), response(3, 200)) == []
    assert failed(*events, allowed=("GET /a 200",)) == []


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        ({"type": "text/plain"}, 50),  # a client may try JSON on anything
        ({"size": "60"}, 50),  # of another size than the answer: something else was parsed
        ({}, 0),  # an answer without a body needs none
    ],
)
def test_what_is_parsed_in_vain_need_not_be_an_answer(answer: dict[str, Any], parsed: int) -> None:
    assert failed(request(1, A), response(1, 200, **answer), not_json(1, parsed)) == []


def test_errors_of_graphql_are_a_failure_though_the_status_is_200() -> None:
    events = (request(1, A), response(1, 200), {"event": "graphql-errors", "id": 1})
    (exchange,) = report_of(events).failed
    assert (exchange.status, exchange.body) == (200, "graphql-errors")


def test_requests_with_other_bodies_are_not_the_same() -> None:
    events = (
        request(1, A, "first body", "POST"),
        response(1, 500),
        request(2, A, "second body", "POST"),
        response(2, 200),
    )
    assert failed(*events) == [A]


def test_tries_add_up() -> None:
    events = [request(1, A), response(1, 503), request(2, A), response(2, 503, tries=3)]
    (exchange,) = report_of(events).failed
    assert exchange.tries == 4


def test_what_waits_is_what_a_deadline_names() -> None:
    assert report_of([request(1, A), response(1, 200), request(2, B)]).waiting == Exchange(
        2, "GET", B, B
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("GET /v1/connectors/*/schemas 404", True),
        ("* /v1/* 4xx", True),
        ("GET api.example.org/v1/* 404", True),
        ("GET /v1/connectors/*/schemas 500", False),
        ("POST /v1/* 404", False),
        ("GET /v2/* 404", False),
        ("GET /v1/connectors/*/schemas error", False),
        ("GET /v1/connectors/[a]/schemas 404", False),
    ],
)
def test_expected_failures_are_named_by_method_path_and_status(
    pattern: str, *, expected: bool
) -> None:
    exchange = Exchange(1, "GET", "https://api.example.org:443/v1/connectors/a/schemas", "", 404)
    assert is_expected(exchange, [pattern]) is expected


def test_a_request_without_an_answer_is_expected_as_error() -> None:
    assert failed(request(1, A), failure(1), allowed=("GET /a error",)) == []
    assert failed(request(1, A), failure(1), allowed=("GET /a 500",)) == [A]


def test_asking_whether_this_is_a_cloud_never_counts() -> None:
    assert failed(request(1, "http://169.254.169.254:80/latest/meta-data"), failure(1)) == []


@pytest.mark.parametrize(
    ("header", "date", "seconds"),
    [
        ("7", None, 7.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 30.0),
        ("soon", None, None),
        (None, None, None),
        ("1 Jan 99999999999999999999 00:00:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "1 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -0000", "Fri, 31 Dec 9999 23:59:58 -0000", 1.0),
    ],
)
def test_retry_after_is_read_in_both_forms(
    header: str | None, date: str | None, seconds: float | None
) -> None:
    (exchange,) = report_of([request(1, A), response(1, 429, retry_after=header, date=date)]).failed
    assert exchange.retry_after == seconds


def test_the_name_of_a_variable_can_be_recorded(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text('{"event": "environment", "name": "A\\udc80"}\n')
    assert read(path).environment == ("A\\udc80",)


def test_a_report_that_breaks_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text('{"event": "environment", "name": "A"}\n{"event": "retur')
    assert read(path) == Report(environment=("A",))
    assert read(tmp_path / "nothing") == Report()


def body(number: int, fault: str, code: int | None = None) -> dict[str, Any]:
    return {"event": "body", "id": number, "fault": fault, "code": code}


def test_a_body_without_data_makes_a_successful_response_a_failure() -> None:
    events = (request(1, A), response(1, 200), body(1, "error-object", 503))
    (exchange,) = report_of(events).failed
    assert (exchange.body, exchange.code) == ("error-object", 503)
    assert failed(*events, request(2, A), response(2, 200)) == []
    assert failed(*events, allowed=("GET /a error-object",)) == []
    assert failed(*events, allowed=("GET /a 2xx",)) == []
    assert failed(*events, allowed=("GET /a html",)) == [A]


def test_html_that_is_allowed_must_still_be_whole() -> None:
    events = (request(1, A), response(1, 200), body(1, "html"), body(1, "cut"))
    (exchange,) = report_of(events, ("GET /a html",)).failed
    assert exchange.body == "cut"


def test_what_is_wrong_with_an_answer_counts_once() -> None:
    events = (request(1, A), response(1, 200), body(1, "html"), not_json(1, 50), failure(1))
    (exchange,) = report_of(events).failed
    assert (exchange.body, exchange.tries) == ("html", 1)


def test_a_redirect_fails_unless_something_asks_for_its_target() -> None:
    redirect = {"event": "redirect", "id": 1}
    events = (request(1, A), response(1, 302), redirect)
    (exchange,) = report_of(events).failed
    assert (exchange.status, exchange.body) == (302, "redirect")
    assert failed(*events, {"event": "followed", "id": 1}, request(2, B), response(2, 200)) == []
    assert failed(*events, allowed=("GET /a 302",)) == []


def test_a_request_without_an_answer_when_the_component_has_returned_is_a_failure() -> None:
    returned = {"event": "returned"}
    assert failed(request(1, A), returned) == [A]
    assert failed(request(1, A), {"event": "raised", "chain": []}) == []
    assert failed(request(1, A), request(2, A), response(2, 200), returned) == []  # a second try
    assert failed(request(1, A), returned, allowed=("GET /a error",)) == []
    (exchange,) = report_of([request(1, A), returned]).failed
    assert (exchange.body, exchange.is_abandoned) == ("unanswered", True)


def test_an_abandoned_request_that_another_one_has_answered_meanwhile_is_no_failure() -> None:
    abandoned = {**failure(1), "abandoned": True}
    returned = {"event": "returned"}
    assert failed(request(1, A), abandoned, returned) == [A]
    assert failed(request(1, A), request(2, A), response(2, 200), abandoned, returned) == []
    assert failed(request(2, A), response(2, 200), request(1, A), abandoned, returned) == [A]
