"""A reverse proxy in front of a store on loopback that carries out faults on request.

A fault is used up by the requests that it matches, and has one of four kinds:

    status, code    the request is read and answered with this error
    cut             the connection breaks while the request is being sent; nothing is carried out
    lost            it is carried out, then the connection breaks before the answer
    death           the same, and the client is killed before the connection breaks

It also plays a store whose listings lag, and one whose clock is ahead.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote

_ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
_HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive", "content-length")
_CUT_BYTES = 1000
_LISTS = ("list-type=", "comp=list")

Answer = tuple[http.client.HTTPResponse, bytes]


@dataclass
class Fault:
    """contains: of "METHOD path?query". times: requests that it hits, after `skip` others.

    status: of the answer, with this code in it.
    """

    contains: str
    kind: Literal["status", "cut", "lost", "death"] = "status"
    status: int = 503
    code: str = "SlowDown"
    method: str = "PUT"
    times: int = 1
    skip: int = 0


class Front(ThreadingHTTPServer):
    """faults: those that are not used up yet. requests: what was asked so far. signed: what S3's
    clients said of the bodies that they sent, by the path.

    victim: the process that a death kills. lags: a listing stays as it was when it was first asked
    for. ahead: seconds by which the store's clock is, for what is written from now on.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = port
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.signed: dict[str, str] = {}
        self.victim = 0
        self.lags = False
        self.ahead = 0.0
        self.listings: dict[str, Answer] = {}
        self.written: dict[str, float] = {}
        self.lock = threading.Lock()

    def environment(self, of: Mapping[str, str]) -> dict[str, str]:
        """A client's variables with this in place of what it stands before."""
        here = f"127.0.0.1:{self.server_address[1]}"
        return {name: _ADDRESS.sub(here, value) for name, value in of.items()}

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that hung up, or died
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if fault.contains in path and fault.method in (method, "*"):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    if not fault.times:
                        self.faults.remove(fault)
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def _serve(self) -> None:
        fault = self.server.fault_of(self.command, unquote(self.path))
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.kind == "cut":
            self.rfile.read(min(_CUT_BYTES, length))
            return self._break()
        body = self.rfile.read(length)
        if body:
            self.server.signed[self.path] = self.headers.get("x-amz-content-sha256", "")
        if fault and fault.kind == "status":
            return self._error(fault)
        response, data = self._answer(body)
        if fault and fault.kind == "death":
            os.kill(self.server.victim, signal.SIGKILL)
        return self._break() if fault else self._pass(response, data)

    def _answer(self, body: bytes) -> Answer:
        listing = self.server.lags and any(kind in self.path for kind in _LISTS)
        if listing and self.path in self.server.listings:
            return self.server.listings[self.path]
        answer = self._ask(body)
        if listing:
            self.server.listings[self.path] = answer
        elif self.command in ("PUT", "POST"):
            self.server.written[self.path] = self.server.ahead
        return answer

    def _ask(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.backend, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815  # the library's names

    def _pass(self, response: http.client.HTTPResponse, data: bytes) -> None:
        self.send_response_only(response.status)
        size = str(len(data))
        ahead = self.server.written.get(self.path, 0.0)
        for name, value in response.getheaders():
            if name.lower() == "last-modified" and ahead:
                moment = parsedate_to_datetime(value).timestamp() + ahead
                self.send_header(name, formatdate(moment, usegmt=True))
            elif name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                size = value
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(data)

    def _error(self, fault: Fault) -> None:
        body = f"<Error><Code>{fault.code}</Code><Message>{fault.code}</Message></Error>".encode()
        self.send_response_only(fault.status)
        self.send_header("x-ms-error-code", fault.code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _break(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def front(environment: Mapping[str, str]) -> Iterator[Front]:
    """Stands before the server whose address is in a client's variables."""
    address = next(filter(None, map(_ADDRESS.search, environment.values())))
    with Front(int(address.group(1))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
