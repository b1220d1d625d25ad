"""How to reach the engine: as the person's own ``docker`` does.

The program knows contexts, TLS, ssh and proxies; so it is asked where the engine is. A local
socket is then spoken to directly. Any other engine is reached through ``docker system
dial-stdio``, which carries the API over a pipe whatever the transport behind it is.

What is spoken is the Engine API (https://docs.docker.com/reference/api/engine/), version 1.41 or
later (Docker 20.10), of which only old and stable parts are used.
"""

from __future__ import annotations

import http.client
import os
import shlex
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from bundler import process
from bundler.errors import ToolFailed

_TIMEOUT_SECONDS = 600.0
_UNIX = "unix://"
# Who only sends headers does not want to wait for a container's whole file system afterwards.
_HINT_ENGINE = "Is the engine running? `docker version` tells."


@dataclass(frozen=True)
class Docker:
    """The person's docker program and its global options (``--context X``, ``-H …``, TLS)."""

    program: str = "docker"
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @classmethod
    def from_environment(cls) -> Docker:
        """``docker``, or what ``STATE_BUNDLER_DOCKER`` says: a program and global options."""
        words = shlex.split(os.environ.get("STATE_BUNDLER_DOCKER", "")) or ["docker"]
        return cls(words[0], tuple(words[1:]))

    def argv(self, *arguments: str) -> list[str]:
        return [self.program, *self.options, *arguments]

    def ask(self, *arguments: str, timeout: float = 60.0) -> str:
        """Runs the program for what it prints. Raises `ToolFailed` where it fails."""
        out = process.check(self.argv(*arguments), env=self.environment, timeout=timeout)
        return out.decode(errors="replace").strip()

    def succeeds(self, *arguments: str) -> bool:
        """Whether the program can do this at all."""
        return process.run(self.argv(*arguments), env=self.environment).exit_code == 0

    def host(self) -> str:
        """The address of the engine, such as ``unix:///var/run/docker.sock``."""
        return self.ask("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")

    def connect(self) -> Engine:
        """Raises `ToolFailed` where the program is missing or no engine answers."""
        return Engine(self)


class Engine:
    """The API of an engine. Each request has a connection of its own.

    So a stream of which only the beginning is wanted can be given up at no cost.
    """

    def __init__(self, docker: Docker) -> None:
        self.docker = docker
        host = docker.host()
        self._socket = host.removeprefix(_UNIX) if host.startswith(_UNIX) else None
        self.headers = self._ping()

    def _ping(self) -> Mapping[str, str]:
        with self.request("GET", "/_ping") as response:
            response.read()
            return dict(response.getheaders())

    def get(self, path: str, /, **query: str) -> Any:
        """The JSON that the engine answers with."""
        with self.request("GET", path, query) as response:
            return _json(response.read())

    def post(self, path: str, value: object = None, /, **query: str) -> Any:
        """Sends JSON, returns JSON; None for an empty answer."""
        body = msgspec.json.encode(value) if value is not None else b""
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        with self.request("POST", path, query, body=body, headers=headers) as response:
            answer = response.read()
        return _json(answer) if answer else None

    def delete(self, path: str, /, **query: str) -> None:
        with self.request("DELETE", path, query) as response:
            response.read()

    def head(self, path: str, /, **query: str) -> Mapping[str, str] | None:
        """The headers of an answer; None where nothing is there."""
        try:
            with self.request("HEAD", path, query) as response:
                return dict(response.getheaders())
        except NotFound:
            return None

    @contextmanager
    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """A request; the answer is open for reading as long as this lasts.

        Raises `NotFound` for 404, `ToolFailed` for every other refusal and for a broken line.
        """
        target = quote(path) + (f"?{urlencode(query)}" if query else "")
        with self._connection() as connection:
            try:
                chunked = body is not None and not isinstance(body, bytes)
                connection.request(
                    method, target, body=body, headers=dict(headers or {}), encode_chunked=chunked
                )
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise ToolFailed(
                    "The Docker engine broke the connection.", hint=_HINT_ENGINE
                ) from error
            with response:
                _refuse(response, path)
                yield response

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("docker", timeout=_TIMEOUT_SECONDS)
        if self._socket is not None:
            connection.sock = _unix_socket(self._socket)
            try:
                yield connection
            finally:
                connection.close()
        else:
            argv = self.docker.argv("system", "dial-stdio")
            with process.dial(argv, env=self.docker.environment) as line:
                line.settimeout(_TIMEOUT_SECONDS)
                connection.sock = line
                try:
                    yield connection
                finally:
                    connection.close()


class NotFound(ToolFailed):
    """The engine does not have what was asked for."""


def _unix_socket(path: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(_TIMEOUT_SECONDS)
    try:
        line.connect(path)
    except OSError as error:
        line.close()
        raise ToolFailed(
            f"No Docker engine answers at {path}: {error.strerror}.", hint=_HINT_ENGINE
        ) from error
    return line


def _refuse(response: http.client.HTTPResponse, path: str) -> None:
    if response.status < http.client.BAD_REQUEST:
        return
    said = response.read()
    with suppress(msgspec.DecodeError):
        said = str(msgspec.json.decode(said)["message"]).encode()
    text = said.decode(errors="replace").strip() or response.reason
    if response.status == http.client.NOT_FOUND:
        raise NotFound(f"The Docker engine does not have it: {text}.")
    raise ToolFailed(f"The Docker engine refused {path.partition('?')[0]}: {text}.")


def _json(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise ToolFailed("The Docker engine answered with something that is no JSON.") from error


def split_options(arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Docker's global options at the front of a command line, and what follows them."""
    rest = list(arguments)
    options: list[str] = []
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        options.append(word)
        if word in _GLOBAL_WITH_VALUE and rest:
            options.append(rest.pop(0))
    return tuple(options), rest


_GLOBAL_WITH_VALUE = {
    *("--config", "-c", "--context", "-H", "--host", "-l", "--log-level"),
    *("--tlscacert", "--tlscert", "--tlskey"),
}
