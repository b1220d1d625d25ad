"""How to reach the engine: as the person's own ``docker`` does.

The program knows contexts, TLS, ssh and proxies; so it is asked where the engine is. A local
socket is then spoken to directly. Any other engine is reached through ``docker system
dial-stdio``, which carries the API over a pipe whatever the transport behind it is. The requests
themselves are the Docker SDK's.

What is spoken is the Engine API (https://docs.docker.com/reference/api/engine/), of which only old
and stable parts are used: version 1.41 is Docker 20.10's, 1.44 the oldest that Docker 29 takes.
"""

from __future__ import annotations

import http.client
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn
from urllib.parse import quote, urlencode

import msgspec

from bundler.artifacts.image.engine.contexts import UNIX, local_socket
from bundler.artifacts.image.engine.transport import (
    EngineRequest,
    Transport,
    body_of,
    dialled,
    opened,
    to_socket,
)
from bundler.errors import ToolFailed
from bundler.system import process

if TYPE_CHECKING:
    import socket
    from contextlib import ExitStack

    import requests

# The versions of the API that we speak.
_OLDEST, _NEWEST = (1, 41), (1, 44)
_PODMAN_HEADER = "libpod-api-version"


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
        known = local_socket(self.program, self.options, self.environment)
        return known or self.ask("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")

    def version(self) -> str:
        """The program's own version, such as ``28.2.2``; asks no engine."""
        said = self.ask("--version")
        return next((word.strip(",v") for word in said.split() if word[:1].isdecimal()), said)

    def refuse_silence(self) -> None:
        """Raises `ToolFailed` where the engine's socket is one here, and nobody listens at it."""
        host = local_socket(self.program, self.options, self.environment)
        if host is not None:
            opened(host.removeprefix(UNIX)).close()

    def connect(self) -> Engine:
        """Raises `ToolFailed` where the program is missing or no engine answers."""
        engine = Engine(self)
        _ = engine.headers  # it is asked
        return engine

    def connect_late(self) -> Engine:
        """As `connect`, but one at a socket here is spoken to when it is first asked something.

        Then the SDK's import, which takes longer than all that an engine is asked, can go on
        beside docker's own build.
        """
        is_here = local_socket(self.program, self.options, self.environment) is not None
        return Engine(self) if is_here else self.connect()


class Engine:
    """The API of an engine; paths and answers are the API's own."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker

    @cached_property
    def _transport(self) -> Transport:
        return _transport(self.docker)

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """What the engine says of itself; names in small letters."""
        with self._answer(EngineRequest("GET", "/_ping")) as response:
            body_of(response).read()
            return {name.lower(): value for name, value in response.headers.items()}

    @cached_property
    def _prefix(self) -> str:
        return "/v" + _spoken(self.headers.get("api-version", ""))

    @property
    def is_podman(self) -> bool:
        return _PODMAN_HEADER in self.headers

    def get(self, path: str, /, **query: str) -> Any:
        """The JSON that the engine answers with."""
        with self.request("GET", path, query) as body:
            return _json(body.read())

    def post(self, path: str, value: object = None, /, **query: str) -> Any:
        """Sends JSON, returns JSON; None for an empty answer."""
        data = msgspec.json.encode(value) if value is not None else b""
        headers = {"Content-Type": "application/json"}
        with self.request("POST", path, query, body=data, headers=headers) as body:
            answer = body.read().strip()  # Podman's empty answer is a line end
            return _json(answer) if answer else None

    def has_image(self, name: str) -> bool:
        """Whether the engine has an image of this name or ID."""
        try:
            self.get(f"/images/{name}/json")
        except NotInEngine:
            return False
        return True

    def delete(self, path: str, /, **query: str) -> None:
        with self.request("DELETE", path, query) as body:
            body.read()

    def head(self, path: str, /, **query: str) -> Mapping[str, str] | None:
        """The headers of an answer; None where nothing is there."""
        try:
            with self._answer(EngineRequest("HEAD", self._url(path, query))) as response:
                return dict(response.headers)
        except NotInEngine:
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

        Raises `NotInEngine` for 404, `ToolFailed` for every other refusal and for a broken line.
        """
        asked = EngineRequest(method, self._url(path, query or {}), body, headers or {})
        with self._answer(asked) as response:
            yield body_of(response)

    def _url(self, path: str, query: Mapping[str, str]) -> str:
        return f"{self._prefix}{quote(path)}" + (f"?{urlencode(query)}" if query else "")

    @contextmanager
    def _answer(self, asked: EngineRequest) -> Iterator[requests.Response]:
        with self._transport.send(asked) as response:
            if not response.ok:
                _refuse(response, asked.path)
            yield response


def _spoken(newest: str) -> str:
    """The version of the API to speak with an engine. newest: that it knows."""
    major, _, minor = newest.partition(".")
    known = (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else _OLDEST
    return "{}.{}".format(*max(_OLDEST, min(known, _NEWEST)))


def _transport(docker: Docker) -> Transport:
    """A local socket is spoken to directly, all else through the program."""
    host = docker.host()
    if host.startswith(UNIX):
        return to_socket(host.removeprefix(UNIX))

    def dial(stack: ExitStack) -> socket.socket:
        argv = docker.argv("system", "dial-stdio")
        return stack.enter_context(process.dial(argv, env=docker.environment))

    return dialled(dial, host)


class NotInEngine(ToolFailed):
    """The engine does not have what was asked for."""


def _refuse(response: requests.Response, path: str) -> NoReturn:
    said = body_of(response).read()
    with suppress(msgspec.DecodeError):
        said = str(msgspec.json.decode(said)["message"]).encode()
    text = said.decode(errors="replace").strip() or response.reason
    if response.status_code == http.client.NOT_FOUND:
        raise NotInEngine(f"The Docker engine does not have it: {text}.")
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
