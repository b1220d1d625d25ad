"""`bundler.worker.bodies`: bodies judged as they stream, whatever the pieces."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.worker import bodies, error_objects
from bundler.worker.recorder import Recorder

JSON = "application/json"
# Text with what a scanner could stumble over.
TEXT = st.text(st.sampled_from('ab"\\{}[],:\né€😀'), max_size=12)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=25,
)
CONTAINERS = st.lists(DOCUMENTS, min_size=1, max_size=5) | st.dictionaries(
    TEXT, DOCUMENTS, min_size=1, max_size=4
)


def judge(
    parts: Iterable[bytes],
    kind: str | None = JSON,
    *,
    method: str = "GET",
    status: int = 200,
    coded: bool = False,
    **headers: str,
) -> list[str]:
    """The faults of an answer whose body comes in these parts."""
    reported: list[dict[str, Any]] = []
    recorder = Recorder(bodies, error_objects)
    recorder.record(
        lambda event, **fields: reported.append({"event": event, **fields}), lambda _: []
    )
    given_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    answered = {**({"content-type": kind} if kind else {}), **given_headers}
    request = recorder.begin(method, "http://host/v1")
    body = recorder.answer(request, status, answered)
    if body is not None:
        for part in parts:
            (body.take_coded if coded else body.take)(part)
        body.end()
    return [line["fault"] for line in reported if line["event"] == "body"]


def in_parts(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def streamed(data: bytes, sizes: list[int]) -> str:
    """What is said of JSON by the scanner of large documents."""
    scan = bodies._Json("utf-8")
    at = 0
    for size in [*sizes, len(data)]:
        fault = scan.feed(data[at : at + size]) if data[at : at + size] else ""
        at += size
        if fault:
            return fault
    return scan.finish()


SIZES = st.lists(st.integers(1, 9), max_size=40)


@given(DOCUMENTS, SIZES, st.booleans(), st.sampled_from([None, 1]))
def test_json_is_whole_in_whatever_pieces_it_comes(
    document: Any, sizes: list[int], ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    assert streamed(data, sizes) == ""


@given(CONTAINERS, SIZES, st.data())
def test_json_that_is_cut_anywhere_is_not(document: Any, sizes: list[int], data: Any) -> None:
    whole = json.dumps(document, ensure_ascii=False).encode()
    at = data.draw(st.integers(1, len(whole) - 1))
    assert streamed(whole[:at], sizes) in ("not-json", "not-utf-8")
    assert judge(in_parts(whole[:at], 7)) in (["not-json"], ["not-utf-8"])


@given(CONTAINERS, SIZES, st.sampled_from([b"x", b"]", b"}", b"<br>", b'"', b"oops"]))
def test_what_is_before_or_after_json_is_seen(document: Any, sizes: list[int], more: bytes) -> None:
    whole = json.dumps(document).encode()
    before, after = more + whole, whole + more
    if more not in (b"]", b"}", b'"'):
        assert streamed(before, sizes) == "not-json"
    if whole[-1:] != more:
        assert streamed(after, sizes) == "not-json"
    assert judge([before]) == judge([after]) == ["not-json"]


@given(CONTAINERS, st.integers(1, 200))
def test_small_pieces_and_large_bodies_come_to_the_same(document: Any, size: int) -> None:
    count = 1 + 100_000 // len(json.dumps(document))
    rows = json.dumps([document] * count).encode()
    assert judge(in_parts(rows, size * 997)) == []
    assert judge(in_parts(rows[:-1], size * 997)) == ["not-json"]


@pytest.mark.parametrize("padding", [0, 100_000])
@pytest.mark.parametrize(
    ("body", "kind", "faults"),
    [
        (b"<!DOCTYPE html><html><p>%s</p>", "text/html", ["html"]),
        (b"<!DOCTYPE html><html><p>%s</p>", JSON, ["html"]),
        (b"\n<!-- %s -->\n<HTML><p>", "text/csv", []),  # the beginning is all comment if padded
        (b"<p>%s</p>", "text/html", ["html"]),
        (b'{"a": "%s"}', JSON, []),
        (b'{"a": "%s"', JSON, ["not-json"]),
        (b'{"a": "%s"', None, ["not-json"]),
        (b'{"a": "%s"', "text/plain", ["not-json"]),
        (b'{"a": "%s"', "application/json charset=utf-8", ["not-json"]),
        (b'{"a": "%s"', "application/json, application/json", ["not-json"]),
        (b'{"a": "%s"}', "text/html, application/json", []),  # the body decides
        (b'{"a": "%s"', "text/html, application/json", ["not-json"]),
        (b"<html>%s</html>", "application/json; charset=utf-8, text/html", ["html"]),
        (b'{"a": "%s"', "text/csv", []),
        (b"[section]\na = {%s", "text/plain", []),
        (b"{%s", "application/octet-stream", []),
        (b'{"a": "\xff%s"}', JSON, ["not-utf-8"]),
        (b'{"a": "\xff%s"}', "application/json; charset=latin-1", []),
        (b'{"a": "%s"}', "application/json; charset=nonsense", []),
        (b'{"a": "%s"}\n{"a": 2}\n', JSON, []),
        (b'{"a": "%s"}\n{"a": 2}\n', "application/x-ndjson", []),
        (b'{"a": "%s"}\n{"a": ', "application/x-ndjson", ["not-json"]),
        (b'for(;;);{"a": "%s"}', JSON, []),
        (b"\xef\xbb\xbf[%s]", JSON, []),
        (b"<rows>%s</rows>", "application/xml", []),
        (b"<rows>%s</rows><!-- x -->\n", "application/atom+xml", []),
        (b"<rows a='1'/>", "text/xml", []),
        (b"<rows>%s", "application/xml", ["not-json"]),
        (b"<?xml version='1.0'?><a:errors>%s</a:errors>", "text/plain", ["error-object"]),
        (b"%s", "text/plain", []),
        (b"\x00\x01%s", "application/vnd.apache.parquet", []),
    ],
)
def test_the_same_is_said_of_small_and_large_bodies(
    body: bytes, kind: str | None, faults: list[str], padding: int
) -> None:
    filled = body.replace(b"%s", b" 1 " * padding if b"[%s]" in body else b"x" * padding)
    if b"[%s]" in body:
        filled = b"\xef\xbb\xbf[" + b"1, " * padding + b"1]"
    elif b"<!-- %s" in body and not padding:
        faults = ["html"]
    assert judge(in_parts(filled, 5000), kind) == faults


def test_utf_16_is_read_as_clients_read_it() -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        assert judge([json.dumps({"a": ["x"] * 9}).encode(encoding)]) == []
        assert judge([json.dumps({"a": ["x"] * 90_000}).encode(encoding)]) == []
        assert judge([json.dumps({"a": ["x"] * 90_000})[:-1].encode(encoding)]) == ["not-json"]


@pytest.mark.parametrize("depth", [5_000, 200_000])
def test_json_that_no_parser_reads_is_refused_in_time(depth: int) -> None:
    assert judge(in_parts(b"[" * depth + b"]" * depth, 1000)) == ["too-deep"]
    assert judge(in_parts(b'{"a":' * depth + b"1" + b"}" * depth, 1000)) == ["too-deep"]
    assert judge([b"[" * 800 + b"]" * 800]) == []


@pytest.mark.slow
def test_what_nests_deeply_all_along_takes_no_longer_than_what_does_not() -> None:
    rows = b"[" + b",".join([b"[" * 700 + b"{}" + b"]" * 700] * 300) + b"]"
    assert judge(in_parts(rows, 65536)) == []
    assert judge(in_parts(rows[:-1], 65536)) == ["not-json"]
    assert judge(in_parts(rows[:-2] + b"}]", 65536)) == ["not-json"]


def test_space_before_a_document_is_passed_over() -> None:
    space = b" \n" * 100_000
    assert judge(in_parts(space, 5000)) == ["empty"]
    assert judge(in_parts(space, 5000), "text/csv") == []
    assert judge(in_parts(space + b"[1]" + space, 5000)) == []
    assert judge(in_parts(space + b"[1", 5000)) == ["not-json"]
    assert judge(in_parts(space + b"<!doctype html>", 5000), "text/csv") == ["html"]


# --- what is no data ------------------------------------------------------------------------------


def test_an_empty_answer_to_a_question_for_data_is_refused() -> None:
    assert judge([]) == judge([], None) == judge([b" \n"]) == ["empty"]
    assert judge([], content_length="0") == ["empty"]
    assert judge([], status=204) == judge([], status=205) == ["empty"]
    # An empty file is a file, and a command needs no answer.
    assert judge([], "binary/octet-stream") == judge([], "text/csv") == []
    assert judge([], method="POST") == judge([], method="POST", status=204) == []
    assert judge([], method="HEAD") == []


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000, "-1", "five", ""])
def test_a_length_that_is_not_a_number_is_not_one(length: str) -> None:
    assert judge([b"[1]"], content_length=length) == []
    assert judge([b"[1"], content_length=length) == ["not-json"]


def test_what_a_server_says_to_a_command_need_not_be_json() -> None:
    assert judge([b"OK"], method="POST") == []
    assert judge([b"OK"]) == ["not-json"]
    assert judge([b'{"a": '], method="POST") == ["not-json"]


def test_an_answer_that_nobody_asked_for_is_refused() -> None:
    assert judge([b"[1]"], status=206) == ["partial"]
    assert judge([b"[1]"], status=202) == ["accepted"]
    assert judge([], status=202) == ["accepted"]  # and not empty, too
    assert judge([b"[1]"], status=202, method="POST") == []
    assert judge([], status=304) == ["not-modified"]


# --- compressed bodies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data)[2:-4]),  # as some servers send it
    ],
)
def test_what_comes_compressed_is_judged_decompressed(coding: str, pack: Any) -> None:
    whole = json.dumps([{"number": number} for number in range(30_000)]).encode()
    for body, faults in (
        (whole, []),
        (whole[:90_000], ["not-json"]),
        (b'{"error": "x"}', ["error-object"]),
    ):
        packed = pack(body)
        assert judge(in_parts(packed, 700), coded=True, content_encoding=coding) == faults
        assert judge([packed[:-9]], coded=True, content_encoding=coding) == ["cut"]
    assert judge([b"no gzip at all"], coded=True, content_encoding=coding) == ["cut"]


def test_a_coding_that_cannot_be_read_is_left_alone() -> None:
    assert judge([b"\x1b\x00\x00"], coded=True, content_encoding="br") == []
    assert judge([b"[1]"], content_encoding="aws-chunked") == []


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_takes_memory() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([packer.compress(b" " * 1_000_000) for _ in range(200)]) + packer.flush()
    tracemalloc.start()
    try:
        assert judge([bomb], coded=True, content_encoding="gzip") == ["bomb"]
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_a_large_body_takes_no_memory() -> None:
    piece = json.dumps([{"name": "x" * 50, "tags": ["a", "b"]}] * 1000).encode()[1:-1] + b","
    tracemalloc.start()
    try:
        assert judge(part for part in (b"[", *[piece] * 300, b"1]")) == []
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", [None, "gzip"])
@pytest.mark.parametrize(
    ("header", "size"),
    [("7", 7), ("0", 0), (None, None), ("seven", None), ("\xb2", None), ("-1", None),
     ("9" * 5000, None)],
)  # fmt: skip
def test_a_size_is_recorded_if_it_is_one(
    header: str | None, size: int | None, coding: str | None
) -> None:
    """That of a packed body is not known."""
    reported: list[dict[str, Any]] = []
    recorder = Recorder(bodies, error_objects)
    recorder.record(
        lambda event, **fields: reported.append({"event": event, **fields}), lambda _: []
    )
    headers = {"content-length": header, "content-encoding": coding}
    given_headers = {name: value for name, value in headers.items() if value is not None}
    recorder.answer(recorder.begin("GET", "http://host/v1"), 200, given_headers)
    assert next(line for line in reported if line["event"] == "response")["size"] == (
        None if coding else size
    )
