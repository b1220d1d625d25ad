"""A server on loopback that answers well, or in one of the ways in which an answer can be wrong.

It runs in the environment of the HTTP clients, which has what compresses and HTTP/2, and prints its
two ports: of HTTP/1.1 and of HTTP/2 without TLS. The first part of the path names the answer.
"""

from __future__ import annotations

import functools
import gzip
import json
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

JSON = "application/json"
_ROWS = [{"id": number, "name": f"item {number}"} for number in range(40)]
_GOOD = json.dumps({"items": _ROWS, "total": 40}).encode()
_TRICKY = [
    {**row, "text": 'a "quoted" [text} with \\ and {{ braces \\"', "more": {"a": [row, {}]}}
    for row in _ROWS
]
_LARGE = json.dumps({"items": _TRICKY * 50}).encode()
_HTML = b"<!DOCTYPE html>\n<html><title>Maintenance</title><h1>We are back soon</h1></html>"
_XML = b'<?xml version="1.0"?>\n<rows><row id="1"/><row id="2">two</row></rows>\n'
_XML_ERROR = b'<?xml version="1.0"?>\n<Error><Code>SlowDown</Code><Message>Slower</Message></Error>'
_SOAP = (
    b'<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body><soap:Fault>'
    b"<faultcode>soap:Server</faultcode></soap:Fault></soap:Body></soap:Envelope>"
)


@dataclass(frozen=True)
class Answer:
    """code: the exit code that it is to have; 0 for a good one. raw: it cannot be parsed as JSON.

    ends: ``whole``, ``short`` (closed before its length), ``reset`` or ``hangs`` in its middle.
    framed: by a length, in chunks, or by the end of the connection. only_1: not in HTTP/2.
    """

    code: int
    make: Callable[[], bytes] = lambda: _GOOD
    kind: str | None = JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ends: str = "whole"
    framed: str = "length"
    raw: bool = False

    @property
    def only_1(self) -> bool:
        return self.framed != "length"

    @property
    def coding(self) -> str:
        return self.headers.get("Content-Encoding", "")


def _error(code: int, document: object, **more: str) -> Answer:
    return Answer(code, lambda: json.dumps(document).encode(), **more)  # type: ignore[arg-type]  # a kind


def _packed(coding: str, body: bytes, code: int = 0) -> Answer:
    return Answer(code, lambda: _pack(coding, body), headers={"Content-Encoding": coding})


def _pack(coding: str, body: bytes) -> bytes:
    if coding == "gzip":
        return gzip.compress(body)
    if coding == "deflate":
        return zlib.compress(body)
    if coding == "br":
        import brotli

        return bytes(brotli.compress(body))
    import zstandard

    return bytes(zstandard.compress(body))


def _bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(b'{"items": ["')]
    parts += [packer.compress(b" " * 1_000_000) for _ in range(30)]
    return b"".join([*parts, packer.compress(b'"]}'), packer.flush()])


GOOD = {
    "good": Answer(0),
    "good-large": Answer(0, lambda: _LARGE),
    "good-chunked": Answer(0, lambda: _LARGE, framed="chunks"),
    "good-until-closed": Answer(0, lambda: _LARGE, framed="end"),
    "good-gzip": _packed("gzip", _LARGE),
    "good-deflate": _packed("deflate", _LARGE),
    "good-brotli": _packed("br", _LARGE),
    "good-zstd": _packed("zstd", _LARGE),
    "good-untyped": Answer(0, kind=None),
    "good-charset": Answer(0, kind="application/json; charset=utf-8"),
    "good-vendor-type": Answer(0, kind="application/vnd.example.v2+json"),
    "good-utf-16": Answer(0, lambda: _GOOD.decode().encode("utf-16"), raw=True),
    "good-latin-1": Answer(
        0,
        lambda: '{"items": ["Zoë"]}'.encode("latin-1"),
        kind=f"{JSON}; charset=iso-8859-1",
        raw=True,
    ),
    "good-bom": Answer(0, lambda: b"\xef\xbb\xbf" + _GOOD, raw=True),
    "good-lines": Answer(0, lambda: b'{"a": 1}\n{"a": 2}\n', raw=True),
    "good-guarded": Answer(0, lambda: b")]}'\n" + _GOOD, raw=True),
    "good-csv": Answer(0, lambda: b"id,error\n1,<html>\n2,none\n", kind="text/csv", raw=True),
    "good-xml": Answer(0, lambda: _XML, kind="application/xml", raw=True),
    "good-binary": Answer(
        0, lambda: bytes(range(256)) * 900, kind="application/octet-stream", raw=True
    ),
    "good-ini": Answer(0, lambda: b"[section]\na = {1\n", kind="text/plain", raw=True),
    "good-no-error": _error(0, {"error": None, "errors": [], "items": _ROWS}),
    "good-error-beside-data": _error(0, {"error": "shard 3 is late", "name": "x", "items": _ROWS}),
    "good-error-column": _error(0, [{"id": 1, "error": "none"}, {"id": 2, "error": "E7"}]),
    "good-failed-job": _error(
        0, {"id": 7, "status": "failed", "error": {"code": 503}, "name": "job"}
    ),
    "good-status": _error(0, {"status": "ok", "message": "all errors are fixed", "code": 0}),
    "good-rows-of-codes": _error(0, [{"code": 404, "label": "Not found"}]),
    "good-redirect": Answer(
        0, status=302, headers={"Location": "/good/elsewhere"}, kind="text/html"
    ),
    "good-html": Answer(0, lambda: _HTML, kind="text/html", raw=True),  # allowed by configuration
}
FAULTS = {
    "html": Answer(69, lambda: _HTML, kind="text/html; charset=utf-8"),
    "html-large": Answer(69, lambda: _HTML + b"<p>soon</p>" * 20_000, kind="text/html"),
    "html-as-json": Answer(69, lambda: _HTML),
    "html-as-json-large": Answer(69, lambda: _HTML + b"<p>soon</p>" * 20_000),
    "html-as-csv": Answer(69, lambda: b"\n<!-- x -->\n" + _HTML, kind="text/csv"),
    "html-untyped": Answer(69, lambda: _HTML, kind=None),
    "xml-error": Answer(65, lambda: _XML_ERROR, kind="application/xml"),
    "xml-error-as-json": Answer(69, lambda: _XML_ERROR),
    "xml-error-untyped": Answer(65, lambda: _XML_ERROR, kind=None),
    "xml-cut": Answer(69, lambda: _XML[:-12], kind="text/xml"),
    "soap-fault": Answer(65, lambda: _SOAP, kind="text/xml; charset=utf-8"),
    "cut-json": Answer(69, lambda: b'[{"name": "x"}, {"na'),
    "cut-json-after-an-item": Answer(69, lambda: b'{"items": [{"name": "x"}, {"name": "y"}'),
    "cut-json-untyped": Answer(69, lambda: b'[{"name": "x"}, {"na', kind=None),
    "cut-json-as-text": Answer(69, lambda: b'{"items": [{"name": "x"}', kind="text/plain"),
    "cut-json-large": Answer(69, lambda: _LARGE[: len(_LARGE) // 2]),
    "cut-json-large-after-an-item": Answer(69, lambda: _LARGE[: _LARGE.rindex(b"}, {") + 1]),
    "cut-json-chunked": Answer(69, lambda: _LARGE[: len(_LARGE) // 2], framed="chunks"),
    "cut-json-until-closed": Answer(69, lambda: _LARGE[:90_000], framed="end"),
    "cut-json-gzip": _packed("gzip", _LARGE[:90_000], 69),
    "cut-json-deflate": _packed("deflate", _LARGE[:90_000], 69),
    "cut-json-brotli": _packed("br", _LARGE[:90_000], 69),
    "cut-json-zstd": _packed("zstd", _LARGE[:90_000], 69),
    "cut-gzip": Answer(
        69, lambda: gzip.compress(_LARGE)[:-800], headers={"Content-Encoding": "gzip"}
    ),
    "malformed": Answer(69, lambda: b'{"items": [{"name" "x"}]}'),
    "warning-before": Answer(69, lambda: b"<br><b>Warning</b>: x on line 7<br>" + _GOOD),
    "warning-after": Answer(69, lambda: _LARGE + b"<br><b>Fatal error</b>: out of memory"),
    "short": Answer(69, ends="short"),
    "short-large": Answer(69, lambda: _LARGE, ends="short"),
    "short-csv": Answer(69, lambda: b"id,name\n" * 90, kind="text/csv", ends="short"),
    "short-gzip": Answer(
        69, lambda: gzip.compress(_LARGE), headers={"Content-Encoding": "gzip"}, ends="short"
    ),
    "short-chunked": Answer(69, lambda: _LARGE, framed="chunks", ends="short"),
    "reset": Answer(69, lambda: _LARGE, ends="reset"),
    "reset-chunked": Answer(69, lambda: _LARGE, framed="chunks", ends="reset"),
    "hangs": Answer(69, lambda: _LARGE, ends="hangs"),
    "hangs-chunked": Answer(69, lambda: _LARGE, framed="chunks", ends="hangs"),
    "error-503": _error(69, {"error": {"code": 503, "message": "unavailable", "status": "X"}}),
    "error-401": _error(77, {"error": {"code": "401", "message": "unauthorized"}}),
    "error-text": _error(65, {"error": "no such report"}),
    "errors": _error(65, {"errors": [{"title": "broken"}], "items": []}),
    "error-status": _error(65, {"status": "error", "message": "try again", "data": None}),
    "error-message": _error(69, {"message": "upstream", "code": 502}),
    "error-flag": _error(77, {"ok": False, "error": "invalid_auth"}),
    "error-untyped": _error(69, {"statusCode": 500, "message": "Internal"}, kind=None),  # type: ignore[arg-type]  # a kind
    "error-problem": _error(
        69,
        {"type": "about:blank", "title": "Busy", "status": 503, "detail": "later"},
        kind="application/problem+json",
    ),
    "graphql-errors": _error(65, {"data": {"items": None}, "errors": [{"message": "boom"}]}),
    "not-utf-8": Answer(65, lambda: b'{"items": [{"name": "Zo\xeb"}]}'),
    "not-utf-8-large": Answer(65, lambda: _LARGE[:-3] + b'"\xff\xfe"]}'),
    "too-deep": Answer(65, lambda: b"[" * 5000 + b"]" * 5000),
    "too-deep-large": Answer(65, lambda: b"[" * 90_000 + b"]" * 90_000),
    "bomb": Answer(65, _bomb, headers={"Content-Encoding": "gzip"}),
    "empty": Answer(69, lambda: b""),
    "empty-chunked": Answer(69, lambda: b"", framed="chunks"),
    "empty-untyped": Answer(69, lambda: b"", kind=None),
    "blank": Answer(69, lambda: b"  \n"),
    "204": Answer(69, lambda: b"", status=204),
    "206": Answer(69, status=206, headers={"Content-Range": "bytes 0-99/5000"}),
    "304": Answer(69, lambda: b"", status=304),
    "redirect-loop": Answer(
        69, lambda: _HTML, status=302, headers={"Location": "/redirect-loop/x"}
    ),
    "redirect-nowhere": Answer(69, status=301),
    "401": Answer(77, status=401),
    "404": Answer(78, status=404),
    "500": Answer(69, status=500),
}
ANSWERS = {**GOOD, **FAULTS}


@functools.cache
def _body(name: str) -> bytes:
    return ANSWERS[name].make()


def _headers(answer: Answer, length: int | None) -> dict[str, str]:
    kind = {"Content-Type": answer.kind} if answer.kind else {}
    framed = {"Content-Length": str(length)} if length is not None else {}
    return {**kind, **answer.headers, **framed}


def _sent(answer: Answer, body: bytes) -> bytes:
    """What of the body is sent before it ends."""
    return body if answer.ends == "whole" else body[: len(body) * 2 // 3]


def _serve_1(connection: socket.socket, stopped: threading.Event) -> None:
    with connection:
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            if not part:
                return
            head += part
        name = head.split(b" ")[1].decode().split("/")[1]
        answer, body = ANSWERS[name], _body(name)
        bodyless = answer.status in (204, 304)
        length = len(body) if answer.framed == "length" and not bodyless else None
        headers = _headers(answer, length)
        if answer.framed == "chunks":
            headers["Transfer-Encoding"] = "chunked"
        version = "1.0" if answer.framed == "end" else "1.1"
        lines = [f"HTTP/{version} {answer.status} X", *(f"{k}: {v}" for k, v in headers.items())]
        data = "\r\n".join([*lines, "Connection: close", "", ""]).encode()
        sent = _sent(answer, body)
        if answer.framed == "chunks":
            size = max(1, len(sent) // 3)
            for at in range(0, len(sent), size):
                piece = sent[at : at + size]
                data += f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
            data += b"0\r\n\r\n" if answer.ends == "whole" else b""
        else:
            data += sent
        connection.sendall(data)
        if answer.ends == "hangs":
            stopped.wait(20)
        elif answer.ends == "reset":
            time.sleep(0.2)  # what was sent must have been read, or the reset takes it back
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            while connection.recv(65536):
                pass


def _serve_2(connection: socket.socket, stopped: threading.Event) -> None:
    import h2.config
    import h2.connection
    import h2.events

    with connection:
        h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        h2c.initiate_connection()
        connection.sendall(h2c.data_to_send())
        while data := connection.recv(65536):
            for event in h2c.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    path = dict(event.headers)[b":path"].decode()
                    _answer_2(connection, h2c, event.stream_id, path.split("/")[1], stopped)
            connection.sendall(h2c.data_to_send())


def _answer_2(
    connection: socket.socket, h2c: object, stream: int, name: str, stopped: threading.Event
) -> None:
    answer, body = ANSWERS[name], _body(name)
    bodyless = answer.status in (204, 304)
    headers = _headers(answer, None if bodyless else len(body))
    pairs = [(key.lower(), value) for key, value in headers.items()]
    h2c.send_headers(stream, [(":status", str(answer.status)), *pairs], end_stream=bodyless)  # type: ignore[attr-defined]  # no types
    sent = b"" if bodyless else _sent(answer, body)
    while sent:
        room = min(h2c.local_flow_control_window(stream), h2c.max_outbound_frame_size)  # type: ignore[attr-defined]
        if not room:
            connection.sendall(h2c.data_to_send())  # type: ignore[attr-defined]
            if not (data := connection.recv(65536)):
                return  # the client has gone
            h2c.receive_data(data)  # type: ignore[attr-defined]
            continue
        h2c.send_data(stream, sent[:room])  # type: ignore[attr-defined]
        sent = sent[room:]
    if answer.ends == "hangs":
        connection.sendall(h2c.data_to_send())  # type: ignore[attr-defined]
        stopped.wait(20)
    elif answer.ends == "reset":
        h2c.reset_stream(stream, 2)  # type: ignore[attr-defined]
    elif not bodyless:
        h2c.end_stream(stream)  # type: ignore[attr-defined]
    connection.sendall(h2c.data_to_send())  # type: ignore[attr-defined]


def _listen(serve: Callable[[socket.socket, threading.Event], None]) -> int:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    stopped = threading.Event()

    def guarded(connection: socket.socket) -> None:
        try:
            serve(connection, stopped)
        except OSError:  # the client has had enough
            connection.close()

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=guarded, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def main() -> None:
    """Serves until its standard input ends."""
    for name in ANSWERS:
        _body(name)
    print(_listen(_serve_1), _listen(_serve_2), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
