"""The Docker SDK's client for the engine that the user's ``docker`` would use.

The SDK's own transport serves a local socket. Everything else goes through ``docker system
dial-stdio``, which carries the API over a pipe:

- named contexts: the SDK reads them from 7.2 on only, and ignores ``--context``, ``-H`` and
  ``--tls…`` of a command line;
- ssh: the SDK needs paramiko, and reads a part of ``~/.ssh/config`` only; its other way starts a
  process whose pipes have no deadline;
- TCP: the SDK reads fewer variables for TLS than docker, and with a proxy, requests takes a CA from
  the environment before the one configured.

`DialAdapter` is the transport for these: the SDK mounts it as it mounts its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from docker import APIClient
from docker.transport.basehttpadapter import BaseHTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from bundler.artifacts.image.engine.contexts import UNIX
from bundler.errors import ConfigurationError
from bundler.system.home import docker_configuration

# The longest silence of an engine: it unpacks gigabytes before it answers.
_TIMEOUT_SECONDS = 600
Dial = Callable[[], AbstractContextManager[socket.socket]]


def connect(host: str, version: str, dial: Dial) -> APIClient:
    """A client for this version of the API. Sends no request yet.

    dial: opens a connection through docker.
    """
    is_local = host.startswith(UNIX)
    address = host if is_local else "unix:///dialled"
    try:
        client = APIClient(address, version=version, timeout=_TIMEOUT_SECONDS)
    except (AttributeError, TypeError, ValueError) as error:  # docker-py reads every entry
        raise ConfigurationError(
            f"docker's configuration, {docker_configuration(os.environ)}, has an entry of an "
            "invalid type.",
            hint='It is a JSON object. Remove entries that are null, such as "proxies": null.',
        ) from error
    if not is_local:
        client.mount("http+docker://", DialAdapter(dial))
    client.trust_env = False  # neither a proxy nor a .netrc is for an engine
    client.headers["Accept-Encoding"] = "identity"  # compressing takes longer than sending
    return client


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
        return _DialedConnection(self._dial)


class _DialedConnection(HTTPConnection):
    def __init__(self, dial: Dial) -> None:
        super().__init__("docker", timeout=_TIMEOUT_SECONDS)
        self._dial = dial
        self._stack = ExitStack()

    def connect(self) -> None:
        self.sock = self._stack.enter_context(self._dial())
        self.sock.settimeout(self.timeout)

    def close(self) -> None:
        super().close()
        self._stack.close()
