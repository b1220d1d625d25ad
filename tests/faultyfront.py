"""A reverse proxy in front of a store on loopback that carries out faults on request.

A fault is used up by the requests that it matches, and has one of three kinds:

    status, code    the request is read and answered with this error
    cut             the connection breaks while the request is being sent; nothing is carried out
    lost            it is carried out, then the connection breaks before the answer
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote

_ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
_HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive", "content-length")
_CUT_BYTES = 1000


@dataclass
class Fault:
    """contains: of "METHOD path?query". times: requests that it hits, after `skip` others.

    status: of the answer, with this code in it.
    """

    contains: str
    kind: Literal["status", "cut", "lost"] = "status"
    status: int = 503
    code: str = "SlowDown"
    method: str = "PUT"
    times: int = 1
    skip: int = 0


class Front(ThreadingHTTPServer):
    """faults: those that are not used up yet. requests: what was asked so far."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = port
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.lock = threading.Lock()

    def environment(self, of: Mapping[str, str]) -> dict[str, str]:
        """A client's variables with this in place of what it stands before."""
        here = f"127.0.0.1:{self.server_address[1]}"
        return {name: _ADDRESS.sub(here, value) for name, value in of.items()}

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
        if fault and fault.kind == "status":
            return self._error(fault)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.backend, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        return self._break() if fault else self._pass(response, data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815  # the library's names

    def _pass(self, response: http.client.HTTPResponse, data: bytes) -> None:
        self.send_response_only(response.status)
        size = str(len(data))
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
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
