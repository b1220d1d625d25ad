"""A server on loopback that misbehaves on purpose: every row of the fault table.

It speaks raw sockets, because most faults are things that an HTTP server would not do. The first
part of the path names the fault: ``/503/v1/items?page=1``; ``swallow-`` and ``raw-`` before it are
left out, and ``@2`` after it makes the second page alone faulty.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

ITEMS_A_PAGE = 20
_DRIP_SECONDS = 0.1


class FaultServer:
    """Serves three pages of items, and faults; a context manager.

    at_once: resets every connection before anything is read. proxy: answers CONNECT with this
    status. requests: how often each target was asked for. connections: all that were accepted.
    """

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, at_once: bool = False, proxy: int | None = None
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self.items = ITEMS_A_PAGE
        self._at_once = at_once
        self._proxy = proxy
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._stopped = threading.Event()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def of(self, fault: str) -> str:
        """The base URL at which this fault happens."""
        return f"{self.url}/{fault}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._socket.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(connection):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            if self._at_once:
                _reset(connection)
                return
            head = self._read_head(connection)
            if head:
                self._answer(connection, head)
            connection.close()

    def _read_head(self, connection: socket.socket) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(65536)
            if not chunk:
                return ""
            data += chunk
        return data.decode("latin-1")

    def _answer(self, connection: socket.socket, head: str) -> None:
        target = head.split(" ")[1]
        self.requests[target] += 1
        if self._proxy is not None:
            connection.sendall(_response(self._proxy, b""))
            return
        page = int(re.search(r"page=(\d+)|$", target)[1] or 1)  # type: ignore[index]  # `$` matches
        fault, _, only = target.lstrip("/").partition("/")[0].partition("@")
        fault = re.sub("^(swallow|raw)-", "", fault)
        if only and int(only) != page:
            fault = ""
        behaviour = self._behaviours().get(fault)
        if behaviour is not None:
            behaviour(connection, head)
        elif fault[:3].isdigit():
            _send_status(connection, fault)
        else:
            connection.sendall(_ok(self._page(page)))

    def _page(self, page: int) -> bytes:
        items = [{"id": i, "name": f"item {page}/{i}"} for i in range(self.items)]
        return json.dumps({"items": items, "total": 3 * self.items}).encode()

    def _behaviours(self) -> dict[str, Callable[[socket.socket, str], None]]:
        body = self._page(1)
        return {
            "reset": lambda c, _: _reset(c),
            "closed": lambda *_: None,
            "silent": lambda *_: self._wait(60),
            "slow-headers": lambda c, _: self._drip(c, _ok(body)),
            "drip": lambda c, _: self._drip(c, body, head=_head(200, len(body))),
            "html": lambda c, _: c.sendall(_response(200, _HTML, "text/html; charset=utf-8")),
            "html-as-json": lambda c, _: c.sendall(_response(200, _HTML)),
            "cut-body": lambda c, _: c.sendall(_head(200, len(body)) + body[: len(body) // 2]),
            "cut-json": lambda c, _: c.sendall(_ok(body[: len(body) // 2])),
            "cut-chunks": lambda c, _: c.sendall(_CHUNKED + b"20\r\n" + body[:16]),
            "no-http": lambda c, _: c.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            "wrong-shape": lambda c, _: c.sendall(_ok(b'{"data": [1, 2, 3]}')),
            "null": lambda c, _: c.sendall(_ok(b"null")),
            "empty": lambda c, _: c.sendall(_ok(b'{"items": [], "total": 0}')),
            "reflect": lambda c, head: c.sendall(_response(401, head.encode("latin-1"))),
            "old-clock": lambda c, _: c.sendall(_response(200, body, extra=_OLD_DATE)),
            "steer": lambda c, _: c.sendall(_response(500, b"\x1b]0;x\x07::set-output name=a::b")),
        }

    def _wait(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _drip(self, connection: socket.socket, data: bytes, head: bytes = b"") -> None:
        connection.sendall(head)
        for byte in data:
            if self._stopped.is_set():
                return
            connection.sendall(bytes([byte]))
            time.sleep(_DRIP_SECONDS)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _send_status(connection: socket.socket, fault: str) -> None:
    """``429-3600`` is a 429 that asks for an hour."""
    status, _, wait = fault.partition("-")
    extra = f"Retry-After: {wait or 1}\r\n" if status == "429" else ""
    connection.sendall(_response(int(status), b'{"error": "no", "items": []}', extra=extra))


_HTML = b"<!doctype html><title>Please log in</title><h1>Please log in</h1>"
_OLD_DATE = "Date: Wed, 21 Oct 2015 07:28:00 GMT\r\n"
_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)


def _head(status: int, length: int, kind: str = "application/json", extra: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} Reason\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
        f"{extra}Connection: close\r\n\r\n"
    ).encode()


def _response(status: int, body: bytes, kind: str = "application/json", extra: str = "") -> bytes:
    return _head(status, len(body), kind, extra) + body


def _ok(body: bytes) -> bytes:
    return _response(200, body)
