"""HTTP to an engine over any line: a local socket, or one that the docker program carries.

One line serves one request after the other. A stream of which only the beginning is wanted is
given up with its line. The standard library's HTTP does all that the Engine API needs; the Docker
SDK on top of it would cost every command more than its requests do.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bundler.errors import ToolFailed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# The longest that an engine is silent: it unpacks gigabytes before it answers.
TIMEOUT_SECONDS = 600.0
# An engine, or what lies between, may have closed a line that was idle for longer.
_IDLE_SECONDS = 5.0
_BUFFER_BYTES = 256 * 1024
HINT = "Is the engine running? `docker version` tells."
BROKEN = "The Docker engine broke the connection."

# Opens a line; the stack closes it.
Dial = Callable[[ExitStack], socket.socket]


def dial_socket(path: str) -> Dial:
    """A local socket. Dialling raises `ToolFailed` where nobody listens."""

    def dial(stack: ExitStack) -> socket.socket:
        line = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            line.connect(path)
        except OSError as error:
            raise ToolFailed(
                f"No Docker engine answers at unix://{path}: {error.strerror or error}.", hint=HINT
            ) from error
        return line

    return dial


@dataclass(frozen=True)
class Request:
    """path: with its query. body: as a whole, or in pieces of which each is sent as a chunk."""

    method: str
    path: str
    body: bytes | Iterable[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Transport:
    """Requests to one engine. where: its address, for messages."""

    def __init__(self, dial: Dial, where: str) -> None:
        self._dial = dial
        self._where = where
        self._idle: list[tuple[_Line, float]] = []
        weakref.finalize(self, _close, self._idle)

    @contextmanager
    def send(self, request: Request) -> Iterator[http.client.HTTPResponse]:
        """The answer, open for reading as long as this lasts.

        Raises `ToolFailed` where no engine answers, or it breaks off.
        """
        line = self._line()
        try:
            with line.answer_to(request, self._where) as response:
                yield response
                if response.isclosed() and not response.will_close:
                    self._idle.append((line, time.monotonic()))
                    return
        except BaseException:
            line.close()
            raise
        line.close()

    def _line(self) -> _Line:
        while self._idle:
            line, since = self._idle.pop()
            if time.monotonic() - since < _IDLE_SECONDS:
                return line
            line.close()
        return _Line(self._dial)


def _close(idle: list[tuple[_Line, float]]) -> None:
    for line, _ in idle:
        line.close()


class _Line(http.client.HTTPConnection):
    def __init__(self, dial: Dial) -> None:
        super().__init__("docker", timeout=TIMEOUT_SECONDS)
        self._dial = dial
        self._stack = ExitStack()

    def connect(self) -> None:
        self.sock = self._dial(self._stack)
        self.sock.settimeout(TIMEOUT_SECONDS)

    def close(self) -> None:
        super().close()
        self._stack.close()

    @contextmanager
    def answer_to(self, request: Request, where: str) -> Iterator[http.client.HTTPResponse]:
        try:
            # An engine that refuses what it is sent answers before it has read it all.
            with suppress(BrokenPipeError, ConnectionResetError):
                self.request(
                    request.method,
                    request.path,
                    request.body,
                    dict(request.headers),
                    encode_chunked=not isinstance(request.body, (bytes, type(None))),
                )
            response = self.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise ToolFailed(f"No Docker engine answers at {where}.", hint=HINT) from error
        with response:
            yield response


class _Body(io.RawIOBase):
    """What the engine sends; a line that breaks is a failure of the engine, not an end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        super().__init__()
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            count = self._response.readinto(buffer)
        except (OSError, http.client.HTTPException) as error:
            raise ToolFailed(BROKEN, hint=HINT) from error
        if not count and self._response.length:  # the end, before what was announced
            raise ToolFailed(BROKEN, hint=HINT)
        return count


def body_of(response: http.client.HTTPResponse) -> io.BufferedReader:
    """The answer's bytes. Reading raises `ToolFailed` where the line breaks."""
    return io.BufferedReader(_Body(response), _BUFFER_BYTES)
