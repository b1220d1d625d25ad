"""A Docker engine, through the methods of the Docker SDK.

docker knows contexts, TLS, ssh and proxies, so it is asked for the engine's address; `transport`
describes how requests are sent. Only old and stable parts of the Engine API are used
(https://docs.docker.com/reference/api/engine/): version 1.41 is Docker 20.10's, 1.44 the oldest
that Docker 29 accepts.

Two requests are not possible with the SDK's methods: ``/_ping``, whose headers it discards, and
looking up a path in a container without starting an archive, which takes a tenth of a second each
time. The SDK's generators for long answers are not used: they remove the deadline from the
connection, and keep it open until the garbage collector runs. Until then the engine locks the
container.
"""

from __future__ import annotations

import os
import posixpath
import shlex
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import msgspec

from bundler.artifacts.image.engine.contexts import UNIX, local_socket
from bundler.errors import ToolFailed
from bundler.system import process
from bundler.system.readable import Readable

if TYPE_CHECKING:
    import requests
    from docker import APIClient

# The versions of the API that we use.
_OLDEST, _NEWEST = (1, 41), (1, 44)
_PODMAN_HEADER = "libpod-api-version"
_HINT = "Is the engine running? Run `docker version` to find out."
_BROKEN = "The Docker engine closed the connection."
# No program is ever run in a container; an image without a command needs a placeholder.
_NEVER_RUN = ["state-bundler-reads-only"]
_READING = {"io.state-bundler.reading": "true"}


@dataclass(frozen=True)
class Docker:
    """The user's docker program and its global options (``--context X``, ``-H …``, TLS)."""

    program: str = "docker"
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @classmethod
    def from_environment(cls) -> Docker:
        """``docker``, or the program and global options in ``STATE_BUNDLER_DOCKER``."""
        words = shlex.split(os.environ.get("STATE_BUNDLER_DOCKER", "")) or ["docker"]
        return cls(words[0], tuple(words[1:]))

    def argv(self, *arguments: str) -> list[str]:
        return [self.program, *self.options, *arguments]

    def ask(self, *arguments: str, timeout: float = 60.0) -> str:
        """Runs the program and returns its output. Raises `ToolFailed` if it fails."""
        out = process.check(self.argv(*arguments), env=self.environment, timeout=timeout)
        return out.decode(errors="replace").strip()

    def dial(self) -> AbstractContextManager[socket.socket]:
        """A connection to the engine through the program."""
        return process.dial(self.argv("system", "dial-stdio"), env=self.environment)

    def succeeds(self, *arguments: str) -> bool:
        """Whether the program supports this command."""
        return process.run(self.argv(*arguments), env=self.environment).exit_code == 0

    @property
    def _local_socket(self) -> str | None:
        is_plain = posixpath.basename(self.program) == "docker" and not self.options
        return local_socket(self.environment) if is_plain else None

    @cached_property
    def host(self) -> str:
        """The address of the engine, such as ``unix:///var/run/docker.sock``."""
        asking = ("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        return self._local_socket or self.ask(*asking)

    def version(self) -> str:
        """The program's own version, such as ``28.2.2``; does not ask the engine."""
        said = self.ask("--version")
        return next((word.strip(",v") for word in said.split() if word[:1].isdecimal()), said)

    def refuse_missing(self) -> None:
        """Raises `ToolFailed` if the program or the engine cannot be reached."""
        process.require(self.program)
        self.connect()

    @cached_property
    def _engine(self) -> Engine:
        """One for all: over ssh, each has its own connection."""
        return Engine(self)

    def connect(self) -> Engine:
        """Raises `ToolFailed` if the program is missing or no engine answers."""
        _ = self._engine.headers  # sends a request
        return self._engine


class Engine:
    """An engine. Every method raises `NotInEngine` if the engine does not have the image, container
    or path, and `ToolFailed` if it refuses, does not answer, or breaks the connection.
    """

    def __init__(self, docker: Docker) -> None:
        self.docker = docker
        # The last response, by thread.
        self._received = threading.local()

    @cached_property
    def _first_client(self) -> APIClient:
        """It negotiates the version of the API."""
        if self.docker.host.startswith(UNIX):
            _require_listener(self.docker.host)
        return self._client_of(_OLDEST)

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers with which the engine describes itself; names in lower case."""
        with self._errors():
            client = self._first_client
            response = client.get(f"{client.base_url}/_ping", timeout=client.timeout)
        return {name.lower(): value for name, value in response.headers.items()}

    @cached_property
    def _client(self) -> APIClient:
        version = _spoken(self.headers.get("api-version", ""))
        return self._first_client if version == _OLDEST else self._client_of(version)

    def _client_of(self, version: tuple[int, int]) -> APIClient:
        from bundler.artifacts.image.engine import transport

        client = transport.connect(self.docker.host, "{}.{}".format(*version), self.docker.dial)
        received = self._received  # a hook that refers to the engine would keep it alive

        def receive(response: requests.Response, *_: object, **__: object) -> None:
            if not response.ok:
                _refuse(response)
            received.response = response

        client.hooks["response"].append(receive)
        weakref.finalize(self, client.close)
        return client

    @property
    def is_podman(self) -> bool:
        return _PODMAN_HEADER in self.headers

    @contextmanager
    def _asking(self) -> Iterator[APIClient]:
        client = self._client
        with self._errors():
            yield client

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raises `ToolFailed` for the errors of the SDK and of its libraries."""
        import requests
        from docker.errors import DockerException

        try:
            yield
        except requests.JSONDecodeError as error:
            raise ToolFailed("The Docker engine answered with invalid JSON.") from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise ToolFailed(_BROKEN, hint=_HINT) from error
        except requests.RequestException as error:
            raise ToolFailed(
                f"No Docker engine responds at {self.docker.host}.", hint=_HINT
            ) from error
        except DockerException as error:
            raise ToolFailed(f"The request to the Docker engine failed: {error}.") from error

    def image(self, name: str) -> Any:
        """What ``docker image inspect`` shows of an image, by name or ID."""
        with self._asking() as client:
            return client.inspect_image(name)

    def has_image(self, name: str) -> bool:
        try:
            self.image(name)
        except NotInEngine:
            return False
        return True

    def history(self, name: str) -> Any:
        with self._asking() as client:
            return client.history(name)

    def images_with(self, label: str) -> Any:
        """The images with a label, ``NAME=VALUE``."""
        with self._asking() as client:
            return client.images(filters={"label": [label]})

    def info(self) -> Any:
        with self._asking() as client:
            return client.info()

    def tag(self, name: str, repository: str, tag: str) -> None:
        with self._asking() as client:
            client.tag(name, repository, tag)

    def remove_image(self, name: str, *, noprune: bool = True, force: bool = False) -> None:
        """noprune: keep this image's unnamed parents."""
        with self._asking() as client:
            client.remove_image(name, force=force, noprune=noprune)

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        """The ID of a container that is never started; removed with its anonymous volumes."""
        with self._asking() as client:
            made = client.create_container(
                image,
                entrypoint=_NEVER_RUN,
                labels=_READING,
                network_disabled=True,
                use_config_proxy=False,
            )
        try:
            yield made["Id"]
        finally:
            with self._asking() as client:
                client.remove_container(made["Id"], v=True, force=True)

    def path_stat(self, container: str, path: str) -> str | None:
        """The engine's encoded description of a path in a container; None if it does not exist."""
        try:
            with self._asking() as client:
                url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
                response = client.head(url, params={"path": path}, timeout=client.timeout)
        except NotInEngine:
            return None
        return response.headers.get("X-Docker-Container-Path-Stat", "")

    def image_archive(self, *names: str) -> AbstractContextManager[BinaryIO]:
        """An image as ``docker save`` writes it, with these names; or by its ID, with none."""

        def ask(client: APIClient) -> object:
            url = f"{client.base_url}/v{client.api_version}/images/get"
            return client.get(url, params={"names": names}, stream=True, timeout=client.timeout)

        return self._answer(ask)

    def archive(self, container: str, path: str) -> AbstractContextManager[BinaryIO]:
        """A file, or a directory with its contents, as a tar stream; named after it."""
        return self._answer(lambda client: client.get_archive(container, path))

    def put_archive(self, container: str, path: str, stream: BinaryIO) -> None:
        """Extracts a tar stream into a directory of a container."""
        with self._asking() as client:
            client.put_archive(container, path, stream)

    def export(self, container: str) -> AbstractContextManager[BinaryIO]:
        """All files of a container as a tar stream."""
        return self._answer(lambda client: client.export(container))

    def load(self, archive: Iterable[bytes]) -> bytes:
        """Sends an archive of images. Returns the engine's report, which also contains its
        errors."""
        with self._answer(lambda client: client.load_image(archive, quiet=True)) as report:
            return report.read()

    @contextmanager
    def _answer(self, ask: Callable[[APIClient], object]) -> Iterator[BinaryIO]:
        """The body of the answer to the last request that `ask` sends."""
        with self._asking() as client:
            ask(client)
        with self._received.response as response:
            yield _body_of(response)


def _body_of(response: requests.Response) -> BinaryIO:
    """A broken connection is an error, not the end of the body."""

    def fill(buffer: memoryview) -> int:
        import urllib3

        try:
            data = response.raw.read(len(buffer))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ToolFailed(_BROKEN, hint=_HINT) from error
        buffer[: len(data)] = data
        return len(data)

    return Readable(fill).buffered()


def _require_listener(host: str) -> None:
    """Raises `ToolFailed` if nobody listens at a local socket.

    The SDK would not say why, and would leave its own socket open.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        try:
            line.connect(host.removeprefix(UNIX))
        except PermissionError as error:
            raise ToolFailed(
                f"This user may not use the Docker engine at {host}: {error.strerror}.",
                hint="Add the user to the socket's group (often `docker`) and log in again.",
            ) from error
        except OSError as error:
            raise ToolFailed(
                f"No Docker engine responds at {host}: {error.strerror or error}.", hint=_HINT
            ) from error


def _spoken(newest: str) -> tuple[int, int]:
    """The version of the API to use with an engine. newest: the newest one that it supports."""
    major, _, minor = newest.partition(".")
    known = (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else _OLDEST
    return max(_OLDEST, min(known, _NEWEST))


class NotInEngine(ToolFailed):
    """The engine does not have what was asked for."""


class InvalidRequest(ToolFailed):
    """The engine does not accept what it was given, such as a name."""


def _refuse(response: requests.Response) -> NoReturn:
    with response:
        said = _body_of(response).read()
    with suppress(msgspec.DecodeError, KeyError, TypeError):
        said = str(msgspec.json.decode(said)["message"]).encode()
    text = said.decode(errors="replace").strip() or response.reason
    if response.status_code == HTTPStatus.NOT_FOUND:
        raise NotInEngine(f"The Docker engine answered: {text}.")
    path = str(response.request.path_url).partition("?")[0]
    error = InvalidRequest if response.status_code == HTTPStatus.BAD_REQUEST else ToolFailed
    raise error(f"The Docker engine refused {path}: {text}.")
