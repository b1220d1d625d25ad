"""How to reach the engine: as the person's own ``docker`` does.

The program knows contexts, TLS, ssh and proxies; so it is asked where the engine is. A local
socket is then spoken to directly by the Docker SDK. Any other engine is reached through ``docker
system dial-stdio``, which carries the API over a pipe whatever the transport behind it is.

What is spoken is the Engine API (https://docs.docker.com/reference/api/engine/), version 1.41 or
later (Docker 20.10), of which only old and stable parts are used.
"""

from __future__ import annotations

import http.client
import io
import os
import shlex
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

import msgspec

from bundler import process
from bundler.errors import ToolFailed

if TYPE_CHECKING:
    import requests
    from _typeshed import WriteableBuffer
    from docker import APIClient

# Docker 20.10's; the SDK would ask the engine for its own with a request more.
_API_VERSION = "1.41"
_TIMEOUT_SECONDS = 600.0
_UNIX = "unix://"
_BROKEN = "The Docker engine broke the connection."
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
    """The API of an engine, through the Docker SDK; paths and answers are the API's own.

    Each request has a connection of its own, so that a stream of which only the beginning is
    wanted can be given up at no cost.
    """

    def __init__(self, docker: Docker) -> None:
        self.docker = docker
        self._client = _client(docker)
        self.headers = self._ping()

    def _ping(self) -> Mapping[str, str]:
        with self._send("GET", "/_ping") as response:
            return dict(response.headers)

    def get(self, path: str, /, **query: str) -> Any:
        """The JSON that the engine answers with."""
        with self._send("GET", path, query) as response:
            return _json(response.content)

    def post(self, path: str, value: object = None, /, **query: str) -> Any:
        """Sends JSON, returns JSON; None for an empty answer."""
        body = msgspec.json.encode(value) if value is not None else b""
        headers = {"Content-Type": "application/json"}
        with self._send("POST", path, query, body=body, headers=headers) as response:
            answer = response.content.strip()  # Podman's empty answer is a line end
            return _json(answer) if answer else None

    def has_image(self, name: str) -> bool:
        """Whether the engine has an image of this name or ID."""
        try:
            self.get(f"/images/{name}/json")
        except NotFound:
            return False
        return True

    def delete(self, path: str, /, **query: str) -> None:
        with self._send("DELETE", path, query):
            pass

    def head(self, path: str, /, **query: str) -> Mapping[str, str] | None:
        """The headers of an answer; None where nothing is there."""
        try:
            with self._send("HEAD", path, query) as response:
                return dict(response.headers)
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
    ) -> Iterator[BinaryIO]:
        """A request; the answer is open for reading as long as this lasts.

        Raises `NotFound` for 404, `ToolFailed` for every other refusal and for a broken line.
        """
        with self._send(method, path, query, body=body, headers=headers) as response:
            yield cast("BinaryIO", _Body(response.raw))

    @contextmanager
    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        import requests

        try:
            response = self._client.request(
                method,
                f"{self._client.base_url}{quote(path)}",
                params=dict(query or {}),
                data=body,
                headers=dict(headers or {}),
                stream=True,
                timeout=_TIMEOUT_SECONDS,
            )
        except requests.RequestException as error:
            raise ToolFailed(
                f"No Docker engine answers at {self.docker.host()}.", hint=_HINT_ENGINE
            ) from error
        try:
            with response:
                _refuse(response, path)
                yield response
        except requests.RequestException as error:
            raise ToolFailed(_BROKEN, hint=_HINT_ENGINE) from error


class _Body(io.RawIOBase):
    """What the engine sends; a line that breaks is a failure of the engine, not an end."""

    def __init__(self, raw: Any) -> None:
        super().__init__()
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        import urllib3

        view = memoryview(buffer)
        try:
            data = self._raw.read(len(view))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ToolFailed(_BROKEN, hint=_HINT_ENGINE) from error
        view[: len(data)] = data
        return len(data)


def _client(docker: Docker) -> APIClient:
    """The SDK's client. A local socket is spoken to directly, all else through the CLI."""
    from docker import APIClient
    from docker.errors import DockerException

    host = docker.host()
    if host.startswith(_UNIX):
        _knock(host)
    base = host if host.startswith(_UNIX) else f"{_UNIX}/dialled"
    try:
        client = APIClient(base_url=base, version=_API_VERSION, timeout=int(_TIMEOUT_SECONDS))
    except DockerException as error:
        raise ToolFailed(f"The Docker SDK cannot use {host}.", hint=_HINT_ENGINE) from error
    if base != host:
        from bundler.artifacts.docker.dialling import DialAdapter

        client.mount("http+docker://", DialAdapter(docker, _TIMEOUT_SECONDS))
    client.trust_env = False  # a proxy of the environment is not for this line
    client.headers["Accept-Encoding"] = "identity"  # packing costs more than the line is worth
    return client


def _knock(host: str) -> None:
    """Raises `ToolFailed` where nobody listens; the SDK would leave its socket open then."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        try:
            line.connect(host.removeprefix(_UNIX))
        except OSError as error:
            raise ToolFailed(
                f"No Docker engine answers at {host}: {error.strerror}.", hint=_HINT_ENGINE
            ) from error


class NotFound(ToolFailed):
    """The engine does not have what was asked for."""


def _refuse(response: requests.Response, path: str) -> None:
    if response.ok:
        return
    said = response.content
    with suppress(msgspec.DecodeError):
        said = str(msgspec.json.decode(said)["message"]).encode()
    text = said.decode(errors="replace").strip() or response.reason
    if response.status_code == http.client.NOT_FOUND:
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
