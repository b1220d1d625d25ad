"""The Docker SDK's requests over connections that something else opens."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from docker.transport.basehttpadapter import BaseHTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

# Opens a connection; the stack closes it.
Dial = Callable[[ExitStack], socket.socket]


class DialAdapter(BaseHTTPAdapter):
    """Sends each request over a line from `dial`; one that is free serves the next, too."""

    def __init__(self, dial: Dial, timeout: float) -> None:
        super().__init__()
        self._pool = _Pool(dial, timeout)

    def get_connection(self, url: str | bytes, proxies: Any = None) -> HTTPConnectionPool:
        del url, proxies
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> str:
        del proxies
        return str(request.path_url)

    def close(self) -> None:
        super().close()
        self._pool.close()


class _Pool(HTTPConnectionPool):
    def __init__(self, dial: Dial, timeout: float) -> None:
        super().__init__("docker", maxsize=25)
        self._dial = dial
        self._seconds = timeout

    def _new_conn(self) -> HTTPConnection:
        return _Line(self._dial, self._seconds)


class _Line(HTTPConnection):
    def __init__(self, dial: Dial, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._dial = dial
        self._stack = ExitStack()

    def connect(self) -> None:
        self.sock = self._dial(self._stack)
        self.sock.settimeout(self.timeout)

    def close(self) -> None:
        super().close()
        self._stack.close()
