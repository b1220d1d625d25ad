"""The Docker SDK's requests over ``docker system dial-stdio``, which knows every transport."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from docker.transport.basehttpadapter import BaseHTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from bundler import process

if TYPE_CHECKING:
    from bundler.artifacts.docker.connection import Docker


class DialAdapter(BaseHTTPAdapter):
    """Gives every request a connection that a docker program of its own carries."""

    def __init__(self, docker: Docker, timeout: float) -> None:
        super().__init__()
        self._pool = _Pool(docker, timeout)

    def get_connection(self, url: str | bytes, proxies: Any = None) -> HTTPConnectionPool:
        del url, proxies
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> str:
        del proxies
        return str(request.path_url)


class _Pool(HTTPConnectionPool):
    def __init__(self, docker: Docker, timeout: float) -> None:
        super().__init__("docker")
        self._docker = docker
        self._seconds = timeout

    def _new_conn(self) -> HTTPConnection:
        return _Connection(self._docker, self._seconds)


class _Connection(HTTPConnection):
    def __init__(self, docker: Docker, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._docker = docker
        self._stack = ExitStack()

    def connect(self) -> None:
        argv = self._docker.argv("system", "dial-stdio")
        line: socket.socket = self._stack.enter_context(
            process.dial(argv, env=self._docker.environment)
        )
        line.settimeout(self.timeout)
        self.sock = line

    def close(self) -> None:
        super().close()
        self._stack.close()
