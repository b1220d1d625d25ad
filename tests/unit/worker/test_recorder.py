"""`bundler.worker.recorder`: what is recorded of answers that are lists, and of what was parsed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from bundler.refresh.outcome.exchanges import report_of
from bundler.worker import bodies, error_objects
from bundler.worker.recorder import Recorder

LIST = "https://host:443/v1/items"
OPAQUE = "eyJza2lwIjoxMDAsImxpbWl0IjoxMDB9"


def parts(value: dict[str, Any]) -> Iterator[str]:
    """The JSON in a string of the answer, which a component parses, too."""
    return (part for part in value.values() if isinstance(part, str) and part.startswith("{"))


def record(exchanges: Iterable[tuple[Any, ...]]) -> list[tuple[str, str]]:
    """The problems of pages. exchanges: a URL, the answer, and the body of the request."""
    reported: list[dict[str, Any]] = []
    recorder = Recorder(bodies, error_objects)
    recorder.record(
        lambda event, **fields: reported.append({"event": event, **fields}), lambda _: []
    )
    for url, value, *body in exchanges:
        request = recorder.begin("POST" if body else "GET", url, *body)
        answer = recorder.answer(request, 200, {"content-type": "application/json"})
        assert answer is not None
        text = json.dumps(value, ensure_ascii=False)
        answer.take(text.encode())
        recorder.decoded(value, text)
        for part in parts(value):
            recorder.decoded(json.loads(part), part)
    return [(exchange.url, exchange.body) for exchange in report_of(reported).unfollowed]


@pytest.mark.parametrize(
    ("cursor", "url", "body"),
    [
        (OPAQUE, f"{LIST}?cursor={OPAQUE}", None),
        ("a/b=", f"{LIST}?cursor=a%2Fb%3D", None),
        ("2", f"{LIST}?limit=20&page=2", None),
        ("2", LIST, b'{"page": 2}'),
        (OPAQUE, "https://host:443/v1/next", {"cursor": OPAQUE}),
        ("https://host/v1/items?$skip=100", f"{LIST}?$skip=100&api=1", None),
        ("/v1/items?offset=20", f"{LIST}?limit=20&offset=20", None),
    ],
)
def test_a_page_that_is_requested_is_followed(cursor: str, url: str, body: Any) -> None:
    first = (LIST, {"items": [1], "nextPage": cursor}, *([b"{}"] if body else []))
    assert record([first]) == [(LIST, "more")]
    assert record([first, (url, {"items": [2]}, *([body] if body else []))]) == []


@pytest.mark.parametrize(
    "cursor", ["1", "2", "v1", "items", "h", "//[", "https://host/v1/items?page=2"]
)
def test_a_cursor_that_is_in_another_url_by_chance_is_not_followed(cursor: str) -> None:
    first = (LIST, {"items": [1], "nextPage": cursor})
    others = [("https://host:443/v1/items/2", {"id": 2}), (f"{LIST}?page=12", {"id": 3})]
    assert record([first, *others]) == [(LIST, "more")]


def test_the_same_cursor_in_two_lists_is_two_pages() -> None:
    other = "https://host:443/v1/others"
    answer = {"items": [1], "nextPage": "2"}
    pages = [(LIST, answer), (other, answer), (f"{other}?page=2", {"items": [2]})]
    assert record(pages) == [(LIST, "more")]


@pytest.mark.parametrize(
    "last",
    [{"hasMore": False}, {"has_more": False}, {"hasMore": "False"}, {"nextPage": None}],
)
def test_a_cursor_of_the_last_page_leads_nowhere(last: dict[str, Any]) -> None:
    assert record([(LIST, {"items": [1], "nextPage": "2", **last})]) == []


def of_dbt_cloud(offset: int, total: int) -> dict[str, Any]:
    counts = {"count": 2, "total_count": total}
    return {
        "data": [{"id": offset}, {"id": offset + 1}],
        "extra": {"filters": {"limit": 2, "offset": offset}, "pagination": counts},
    }


def test_a_list_of_dbt_cloud_that_is_longer_than_what_was_requested_is_reported() -> None:
    first, second = (f"{LIST}?project_id=2&offset={offset}" for offset in (0, 2))
    assert record([(first, of_dbt_cloud(0, 2))]) == []
    assert record([(first, of_dbt_cloud(0, 4)), (second, of_dbt_cloud(2, 4))]) == []
    assert record([(first, of_dbt_cloud(0, 4))]) == [(LIST, "more")]
    assert record([(first, of_dbt_cloud(0, 5)), (second, of_dbt_cloud(2, 5))]) == [(LIST, "more")]
    assert record([(first, {"data": [1], "extra": {"pagination": None}})]) == []
    assert (
        record(
            [
                (
                    first,
                    {
                        **of_dbt_cloud(0, 4),
                        "extra": {"filters": {"offset": 1e999}, "pagination": {}},
                    },
                )
            ]
        )
        == []
    )


def test_a_page_that_comes_twice_is_reported() -> None:
    rows = {"data": [{"id": 1}, {"id": 2}]}
    twice = [(f"{LIST}?offset={offset}", rows) for offset in (0, 2)]
    assert record(twice) == [(LIST, "repeated")]
    assert record([*twice[:1], *twice[:1]]) == []  # asked again
    assert record([*twice[:1], (f"{LIST}?offset=2", {"data": [{"id": 3}]})]) == []
    assert record([(f"{LIST}?offset={offset}", {"data": []}) for offset in (0, 2)]) == []
    following = [(url, {**value, "nextPage": OPAQUE}) for url, value in twice]
    last = (f"{LIST}?cursor={OPAQUE}", {"data": []})
    assert record([*following, last]) == [(LIST, "repeated")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("id=1", "id=2"),  # one object each
        ("page=1&type=a", "page=1&type=b"),
        ("start_date=1", "start_date=2"),
        ("access_token=1", "access_token=2"),
    ],
)
def test_equal_lists_of_different_things_are_no_pages(first: str, second: str) -> None:
    answers = [(f"{LIST}?{query}", {"name": query, "tags": ["x"]}) for query in (first, second)]
    assert record(answers) == []


def test_pages_with_the_same_columns_are_not_equal() -> None:
    pages = [{"columns": ["a"], "rows": [[page]], "config": '{"x": ["é"]}'} for page in (1, 2)]
    answers = [(f"{LIST}?page={number}", page) for number, page in enumerate(pages)]
    assert record(answers) == []
    assert record([(LIST, {"é": 1, "config": "{}"})]) == []


def test_an_object_without_anything_is_reported() -> None:
    assert record([(LIST, {})]) == [(LIST, "nothing")]
    assert record([(LIST, {}, b"a command")]) == []


# --- how a client reads it ------------------------------------------------------------------------


def misread(body: bytes, text: str) -> bool:
    reported: list[str] = []
    recorder = Recorder(bodies, error_objects)
    recorder.record(lambda _, **fields: reported.append(str(fields.get("fault"))), lambda _: [])
    answer = recorder.answer(recorder.begin("GET", LIST), 200, {"content-type": "text/json"})
    assert answer is not None
    answer.take(body)
    recorder.decoded(json.loads(text), text)
    return "not-utf-8" in reported


UTF_8 = '["Zoë", "100 €"]'.encode()


@pytest.mark.parametrize("charset", ["latin-1", "cp1252"])
def test_utf_8_that_is_read_byte_by_byte_is_reported(charset: str) -> None:
    assert misread(UTF_8, UTF_8.decode(charset, "replace"))


def test_text_that_is_read_as_it_is_meant_is_not() -> None:
    assert not misread(UTF_8, UTF_8.decode())
    assert not misread(b'["x"]', '["x"]')
    assert not misread('["Zoë"]'.encode("latin-1"), '["Zoë"]')
    # A name that somebody has misread before, in UTF-8.
    assert not misread('["ZoÃ«"]'.encode(), '["ZoÃ«"]')


def test_ascii_with_other_characters_is_reported() -> None:
    assert misread(UTF_8, UTF_8.decode("ascii", "replace"))


# --- what a library leaves out --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "is_reported"),
    [
        ("Failed to fetch LookML explore 'a' for model 'b'.", True),
        ("Failed to process Tableau workbook a with id 1: 'NoneType'. Skipping.", True),
        ("No data retrieved for Tableau workbook a with id 1. Skipping.", True),
        ("Ignoring connector `a`. Dagster requires connector schema information", True),
        ("Ignoring incomplete or broken connector `a`.", False),
        ("something else", False),
    ],
)
def test_what_a_library_says_it_omits_is_blamed_on_the_last_response(
    message: str, *, is_reported: bool
) -> None:
    reported: list[dict[str, Any]] = []
    recorder = Recorder(bodies, error_objects)
    recorder.record(
        lambda event, **fields: reported.append({"event": event, **fields}), lambda _: []
    )
    recorder.answer(recorder.begin("GET", LIST), 200, {})
    recorder.warned(message)
    assert [one.body for one in report_of(reported).failed] == ["skipped"] * is_reported


@pytest.mark.parametrize(("is_expected", "faults"), [(False, [""]), (True, [])])
def test_what_is_left_out_after_a_request_that_failed_is_not_the_fault_of_an_earlier_one(
    is_expected: bool, faults: list[str]
) -> None:
    reported: list[dict[str, Any]] = []
    recorder = Recorder(bodies, error_objects)
    recorder.record(
        lambda event, **fields: reported.append({"event": event, **fields}), lambda _: []
    )
    recorder.answer(recorder.begin("GET", f"{LIST}/1"), 200, {})
    recorder.fail(recorder.begin("GET", f"{LIST}/2").number, ConnectionRefusedError())
    recorder.warned("Failed to fetch LookML explore 'a' for model 'b'.")
    report = report_of(reported, ["GET /v1/items/2 error"] * is_expected)
    assert [one.body for one in report.failed] == faults


def test_a_message_that_is_not_text_is_passed_to_the_logger() -> None:
    class Message:
        def __str__(self) -> str:
            raise LookupError

    recorder = Recorder(bodies, error_objects)
    recorder.record(lambda *_, **__: None, lambda _: [])
    recorder.warned(Message())


def test_forks_that_ask_at_the_same_time_do_not_hide_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[dict[str, Any]] = []
    requests = []
    for pid in (41, 42):  # each fork has its own copy of the recorder
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        recorder = Recorder(bodies, error_objects)
        recorder.record(
            lambda event, **rest: reported.append({"event": event, **rest}), lambda _: []
        )
        requests.append((recorder, recorder.begin("GET", f"{LIST}/{pid}")))
    for status, (recorder, request) in zip((200, 500), reversed(requests), strict=True):
        recorder.answer(request, status, {})
    assert [exchange.status for exchange in report_of(reported).failed] == [500]


@pytest.mark.parametrize(
    ("method", "status", "counts"),
    [
        *(("GET", status, True) for status in (301, 302, 303, 307, 308)),
        *(("POST", status, True) for status in (307, 308)),
        *(("POST", status, False) for status in (301, 302, 303)),
        ("HEAD", 307, False),
    ],
)
def test_a_redirect_that_is_not_followed(method: str, status: int, counts: bool) -> None:
    reported: list[dict[str, Any]] = []
    recorder = Recorder(bodies, error_objects)
    recorder.record(lambda event, **rest: reported.append({"event": event, **rest}), lambda _: [])
    recorder.answer(recorder.begin(method, LIST), status, {"location": "/v2/items"})
    assert [exchange.body for exchange in report_of(reported).failed] == ["redirect"] * counts
    recorder.begin(method, "https://host:443/v2/items")
    assert report_of(reported).failed == ()


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ({}, {"Range": "bytes=500-"}, True),
        ({"Range": "bytes=0-"}, {"range": "bytes=500-"}, True),
        ({"Range": "bytes=0-499"}, {"Range": "bytes=500-999"}, False),
        ({"x-ms-range": "bytes=0-499"}, {"x-ms-range": "bytes=500-999"}, False),
        ({}, {"Range": "bytes=500-999"}, False),
        ({"X-Tenant": "a"}, {"X-Tenant": "b"}, False),
        ({"Idempotency-Key": "a", "traceparent": "b"}, {"X-Amz-Date": "c", "Date": "d"}, True),
    ],
)
def test_which_headers_make_another_request(
    first: dict[str, str], second: dict[str, str], *, is_same: bool
) -> None:
    reported: list[dict[str, Any]] = []
    recorder = Recorder(bodies, error_objects)
    recorder.record(
        lambda event, **fields: reported.append({"event": event, **fields}), lambda _: []
    )
    for headers in (first, second):
        request = recorder.begin("GET", LIST, None, headers.items())
        recorder.answer(request, 206, {})
    requests = [line["same"] for line in reported if line["event"] == "request"]
    assert (requests[0] == requests[1]) == is_same
    partial = [line for line in reported if line.get("fault") == "partial"]
    assert len(partial) == sum("range" not in " ".join(it).lower() for it in (first, second))
