"""Requests to an engine through the Docker SDK, over any line.

To an engine that is not here a line is carried by ``docker system dial-stdio``, which knows
contexts, TLS and ssh as the person's own docker does.
"""

from __future__ import annotations

import io
import socket
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bundler.errors import ToolFailed

if TYPE_CHECKING:
    import requests
    from _typeshed import WriteableBuffer
    from docker import APIClient

    from bundler.artifacts.image.engine.dialling import Dial

# The longest that an engine is silent: it unpacks gigabytes before it answers.
TIMEOUT_SECONDS = 600.0
_BUFFER_BYTES = 256 * 1024
HINT = "Is the engine running? `docker version` tells."
BROKEN = "The Docker engine broke the connection."
# Paths name the version they mean; with this one the SDK does not ask the engine for its own.
_SDK_VERSION = "1.41"


@dataclass(frozen=True)
class EngineRequest:
    """path: with its query. body: as a whole, or in pieces of which each is sent as a chunk."""

    method: str
    path: str
    body: bytes | Iterable[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Transport:
    """Requests to one engine. where: its address, for messages."""

    def __init__(self, client: APIClient, where: str) -> None:
        client.trust_env = False  # a proxy of the environment is not for this line
        client.headers["Accept-Encoding"] = "identity"  # packing costs more than the line is worth
        self._client = client
        self._where = where
        weakref.finalize(self, client.close)

    @contextmanager
    def send(self, request: EngineRequest) -> Iterator[requests.Response]:
        """The answer, open for reading as long as this lasts.

        Raises `ToolFailed` where no engine answers, or it breaks off.
        """
        import requests

        try:
            response = self._client.request(
                request.method,
                self._client.base_url + request.path,
                data=request.body,
                headers=dict(request.headers),
                stream=True,
                timeout=TIMEOUT_SECONDS,
            )
        except requests.RequestException as error:
            raise ToolFailed(f"No Docker engine answers at {self._where}.", hint=HINT) from error
        with response:
            yield response


def preload() -> None:
    """Imports the SDK beside other work: that takes longer than all that an engine is asked."""
    import importlib
    import threading

    threading.Thread(target=importlib.import_module, args=("docker",)).start()


def to_socket(path: str) -> Transport:
    """Over a local socket, which we open: the SDK leaves its own open where nobody listens."""

    def dial(stack: ExitStack) -> socket.socket:
        return stack.enter_context(opened(path))

    return dialled(dial, f"unix://{path}")


def opened(path: str) -> socket.socket:
    """A line to a local socket. Raises `ToolFailed` where nobody listens."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(path)
    except OSError as error:
        line.close()
        raise ToolFailed(
            f"No Docker engine answers at unix://{path}: {error.strerror or error}.", hint=HINT
        ) from error
    return line


def dialled(dial: Dial, where: str) -> Transport:
    """Over lines that something else opens."""
    from docker import APIClient
    from docker.errors import DockerException

    from bundler.artifacts.image.engine.dialling import DialAdapter

    try:
        timeout = int(TIMEOUT_SECONDS)
        client = APIClient(base_url="unix:///dialled", version=_SDK_VERSION, timeout=timeout)
    except DockerException as error:
        raise ToolFailed(f"The Docker SDK cannot use {where}.", hint=HINT) from error
    client.mount("http+docker://", DialAdapter(dial, TIMEOUT_SECONDS))
    return Transport(client, where)


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
            raise ToolFailed(BROKEN, hint=HINT) from error
        view[: len(data)] = data
        return len(data)


def body_of(response: requests.Response) -> io.BufferedReader:
    """The answer's bytes. Reading raises `ToolFailed` where the line breaks."""
    return io.BufferedReader(_Body(response.raw), _BUFFER_BYTES)
