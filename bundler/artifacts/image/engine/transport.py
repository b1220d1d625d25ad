"""The Docker SDK's client for the engine that the user's ``docker`` would use.

The SDK's own transports serve a local socket, and TCP where the environment alone configures it
(``DOCKER_HOST``, ``DOCKER_TLS_VERIFY``, ``DOCKER_CERT_PATH``). Everything else goes through
``docker system dial-stdio``, which carries the API over a pipe:

- named contexts: the SDK reads them from 7.2 on only, and ignores ``--context``, ``-H`` and
  ``--tls…`` of a command line;
- ssh: the SDK needs paramiko, and reads a part of ``~/.ssh/config`` only; its other way starts a
  process whose pipes have no deadline;
- proxies: with them, requests also takes a CA from the environment, before the one configured.

`DialAdapter` is the transport for these: the SDK mounts it as it mounts its own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from docker import APIClient
from docker.errors import DockerException
from docker.transport.basehttpadapter import BaseHTTPAdapter
from docker.utils import kwargs_from_env
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from bundler.artifacts.image.engine.contexts import UNIX
from bundler.errors import ToolFailed

# The longest silence of an engine: it unpacks gigabytes before it answers.
_TIMEOUT_SECONDS = 600
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
# Opens a connection; the stack closes it.
Dial = Callable[[ExitStack], socket.socket]


def connect(
    host: str, version: str, *, environment: Mapping[str, str] | None, dial: Dial
) -> APIClient:
    """A client for this version of the API. Sends no request yet.

    environment: the only configuration of docker; None if it has another. dial: opens a connection
    through docker. Raises `ToolFailed` if the SDK rejects the address or its certificates.
    """
    try:
        client = _client(host, version, environment or {}, dial)
    except DockerException as error:
        raise ToolFailed(
            f"The Docker SDK cannot use {host}: {error}",
            hint="Check DOCKER_HOST, and the certificates in DOCKER_CERT_PATH.",
        ) from error
    client.trust_env = False  # neither a proxy nor a .netrc is for an engine
    client.headers["Accept-Encoding"] = "identity"  # compressing takes longer than sending
    return client


def _client(host: str, version: str, environment: Mapping[str, str], dial: Dial) -> APIClient:
    if host.startswith(UNIX):
        return APIClient(host, version=version, timeout=_TIMEOUT_SECONDS)
    if _is_read_alike(environment):
        parameters = kwargs_from_env(environment)
        return APIClient(**parameters, version=version, timeout=_TIMEOUT_SECONDS)
    client = APIClient("unix:///dialled", version=version, timeout=_TIMEOUT_SECONDS)
    client.mount("http+docker://", DialAdapter(dial))
    return client


def _is_read_alike(environment: Mapping[str, str]) -> bool:
    """Whether the SDK and docker read the environment the same way: TCP, with full TLS or
    without."""
    given = {name: value for name, value in environment.items() if value}
    if not given.get("DOCKER_HOST", "").startswith("tcp://"):
        return False
    if any(name.lower() in _PROXIES for name in given):
        return False
    tls = {name for name in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH") if name in given}
    return "DOCKER_TLS" not in given and len(tls) != 1


class DialAdapter(BaseHTTPAdapter):
    """Sends requests over connections from `dial`; an idle connection is reused."""

    def __init__(self, dial: Dial) -> None:
        super().__init__()
        self._pool = _Pool(dial)

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
    def __init__(self, dial: Dial) -> None:
        super().__init__("docker", maxsize=25)
        self._dial = dial

    def _new_conn(self) -> HTTPConnection:
        return _Connection(self._dial)


class _Connection(HTTPConnection):
    def __init__(self, dial: Dial) -> None:
        super().__init__("docker", timeout=_TIMEOUT_SECONDS)
        self._dial = dial
        self._stack = ExitStack()

    def connect(self) -> None:
        self.sock = self._dial(self._stack)
        self.sock.settimeout(self.timeout)

    def close(self) -> None:
        super().close()
        self._stack.close()
