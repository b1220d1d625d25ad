"""A connection to one registry: requests with credentials, proxies, redirects, and retries.

Failures that waiting can fix are retried for up to a minute and a half: a dropped connection, a
server's error, "too many requests" (after the time that the registry names). The protocol is
https://github.com/opencontainers/distribution-spec/blob/main/spec.md over HTTPS; plain HTTP only
with loopback addresses and with the hosts in ``STATE_BUNDLER_INSECURE_REGISTRIES``.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec

from bundler.artifacts.image.compression import Compression
from bundler.artifacts.image.layer import Layer, Written
from bundler.artifacts.image.registry.credentials import Logins
from bundler.artifacts.image.registry.proxies import is_loopback, pool_for
from bundler.artifacts.image.registry.tokens import Authorizer, Challenge, Scope
from bundler.artifacts.image.registry.trust import distrust
from bundler.artifacts.reference import HUB
from bundler.errors import BundlerError, CredentialsRefused, ToolFailed
from bundler.listener import SILENT, Listener
from bundler.system.retries import retried
from bundler.version import __version__

if TYPE_CHECKING:
    import urllib3
    from typing_extensions import Self

Body = Callable[[], bytes | Iterable[bytes]]
_T = TypeVar("_T")

INSECURE = "STATE_BUNDLER_INSECURE_REGISTRIES"
_HUB_HOST = "registry-1.docker.io"
_ATTEMPTS = 5
_PATIENCE_SECONDS = 90.0
# If a registry asks for a longer wait, the request fails: the user decides.
_LONGEST_WAIT_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0
_MAX_REDIRECTS = 5
_MAX_ERROR_BYTES = 64 * 1024
_MAX_TOKEN_BYTES = 1024 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _PROXY_LOGIN, _TOO_MANY = 401, 403, 404, 407, 429
_TRANSIENT = (408, _TOO_MANY, 500, 502, 503, 504)
_SHOWN_MESSAGE = 200


class NotInRegistry(ToolFailed):
    """The registry does not have what was asked for."""


class Transient(ToolFailed):
    """A failure that waiting may fix. wait: seconds that the registry asks for; None for our
    default."""

    def __init__(self, what: str, *, wait: float | None = None) -> None:
        super().__init__(what, hint="Try again later; no tag was changed.")
        self.wait = wait


class RegistryRequest(msgspec.Struct, frozen=True):
    """path: below the host, or a complete address that the registry returned. expected: the
    statuses that are answers; 404 raises `NotInRegistry` if it is not among them. body: called for
    each attempt."""

    method: str
    path: str
    scope: Scope
    expected: tuple[int, ...] = (200,)
    headers: Mapping[str, str] = {}
    body: Body | None = None


class SentLayer(msgspec.Struct, frozen=True):
    """A layer that a repository has from this command."""

    layer: Layer
    packing: Compression
    repository: str
    written: Written


class Connection:
    """Connections to one registry, for all of its repositories; thread-safe."""

    def __init__(self, host: str, listener: Listener = SILENT) -> None:
        self.host = host
        self._listener = listener
        self._authorizer = Authorizer(host, Logins(host), self._ask)
        # What this command has sent, for other images of the same registry.
        self.sent: list[SentLayer] = []
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._base_address: str | None = None
        self._lock = threading.RLock()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    def patient(self, work: Callable[[], _T]) -> _T:
        """Repeats an operation while its failure is `Transient`."""
        return retried(
            self._backoff,
            work,
            attempts=_ATTEMPTS,
            timeout=_PATIENCE_SECONDS,
            wait_initial=0.5,
            wait_max=10.0,
        )

    def _backoff(self, error: Exception) -> bool | float:
        if not isinstance(error, Transient):
            return False
        if error.wait is not None and error.wait > _LONGEST_WAIT_SECONDS:
            return False
        self._listener.note(f"{error.what} Trying again.")
        return True if error.wait is None else error.wait

    def send(self, request: RegistryRequest) -> AbstractContextManager[urllib3.BaseHTTPResponse]:
        """Sends a request with retries; its body is read within the context."""
        return _keeping_the_line(self.patient(lambda: self.once(request)))

    def attempt(self, request: RegistryRequest) -> AbstractContextManager[urllib3.BaseHTTPResponse]:
        """Like `send`, but without retries; raises as `once` does."""
        return _keeping_the_line(self.once(request))

    def once(self, request: RegistryRequest) -> urllib3.BaseHTTPResponse:
        """One attempt, with a new token or other credentials if the present ones are refused. The
        caller closes the answer.

        Raises `Transient`, `NotInRegistry`, `CredentialsRefused`, and `ToolFailed` for an
        unexpected answer.
        """
        for tries in range(3):
            authorization = self._authorizer.header(request.scope)
            response = self._redirected(request, authorization)
            if response.status != _UNAUTHORIZED or tries == 2:  # noqa: PLR2004  # the last one
                break
            with _keeping_the_line(response):
                challenge = Challenge(
                    response.headers.get("WWW-Authenticate", ""),
                    request.scope,
                    authorization,
                    again=tries > 0,
                    plain=self._base().startswith("http:"),
                )
            self._authorizer.answer(challenge)
        if response.status not in request.expected:
            with response:
                raise self._failure(request, response)
        return response

    def _failure(
        self, request: RegistryRequest, response: urllib3.BaseHTTPResponse
    ) -> BundlerError:
        status = response.status
        said = _said(_start_of(response, _MAX_ERROR_BYTES))
        path = urlsplit(request.path).path  # its query may be signed
        what = f"The registry {self.host} answered {status} to {request.method} {path}"
        if status in _TRANSIENT:
            return Transient(f"{what}{said}.", wait=_wait(response))
        if status == _NOT_FOUND:
            return NotInRegistry(f"{what}{said}.")
        if status == _UNAUTHORIZED:
            return self._authorizer.refused(request.scope)
        if status == _FORBIDDEN:
            return CredentialsRefused(
                f"{what}{said}.", hint="Does this login have permission for that?"
            )
        return ToolFailed(f"{what}{said}.")

    def _redirected(
        self, request: RegistryRequest, authorization: str | None
    ) -> urllib3.BaseHTTPResponse:
        """Follows redirects: blobs are often in an object store, which must not see our token."""
        base = self._base()
        address = self._joined(base, request.path)
        for _ in range(_MAX_REDIRECTS):
            headers = {"Accept-Encoding": "identity", **request.headers}
            if authorization is not None and urlsplit(address)[:2] == urlsplit(base)[:2]:
                headers["Authorization"] = authorization
            body = request.body() if request.body is not None else None
            response = self._bare(request.method, address, headers, body)
            if response.status not in _REDIRECTS:
                return response
            with _keeping_the_line(response):
                target = self._joined(address, response.headers.get("Location") or "")
            if address.startswith("https:") and not target.startswith("https:"):
                raise ToolFailed(f"The registry {self.host} redirects to an address without TLS.")
            address = target
        raise ToolFailed(f"The registry {self.host} redirects in a loop.")

    def _joined(self, base: str, address: str) -> str:
        try:
            return urljoin(base, address)
        except ValueError as error:  # urllib's own error would quote it, with what is signed
            raise ToolFailed(f"The registry {self.host} names an invalid address.") from error

    def _bare(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
    ) -> urllib3.BaseHTTPResponse:
        import urllib3

        named = {"User-Agent": f"state-bundler/{__version__}", **headers}
        try:
            return self._pool(address).request(
                method,
                address,
                headers=named,
                body=body,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            )
        except urllib3.exceptions.SSLError as error:
            raise distrust(_host_of(address), error) from error
        except urllib3.exceptions.ProxyError as error:
            raise _of_proxy(_host_of(address), error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(f"{_host_of(address)} {_why(error)}.") from error

    def _ask(
        self, method: str, address: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        """Sends a request to a token service."""

        def once() -> tuple[int, bytes]:
            with self._bare(method, address, headers, body) as response:
                if response.status in _TRANSIENT:
                    what = f"The token service of {self.host} answered {response.status}."
                    raise Transient(what, wait=_wait(response))
                return response.status, _start_of(response, _MAX_TOKEN_BYTES)

        return self.patient(once)

    def _pool(self, address: str) -> urllib3.PoolManager:
        parts = urlsplit(address)
        way = f"{parts.scheme}://{parts.netloc}"  # certificates and proxies differ by scheme, too
        with self._lock:
            if way not in self._pools:
                self._pools[way] = pool_for(address)
            return self._pools[way]

    def _base(self) -> str:
        with self._lock:
            if self._base_address is None:
                self._base_address = self._found_base()
            return self._base_address

    def _found_base(self) -> str:
        host = _HUB_HOST if self.host == HUB else self.host
        if not may_be_plain(host):
            return f"https://{host}"
        try:
            answer = self._bare("GET", f"http://{host}/v2/", {}, None)
            with _keeping_the_line(answer) as response:
                # Go's TLS servers answer plain requests with 400.
                plain = response.status in (200, _UNAUTHORIZED, _TOO_MANY) or (
                    response.status >= 500  # noqa: PLR2004  # of whatever kind: it speaks HTTP
                )
        except Transient as error:  # if nothing listens, TLS would change nothing
            plain = isinstance(error.__cause__, ConnectionError) or "refused" in error.what
        return f"http://{host}" if plain else f"https://{host}"


class Connections:
    """The connections of one command, one for each registry; thread-safe.

    Many images in a registry then share its connections, the tokens and the answers of helpers.
    """

    def __init__(self) -> None:
        self._by_host: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def to(self, host: str) -> Connection:
        with self._lock:
            if host not in self._by_host:
                self._by_host[host] = Connection(host)
            return self._by_host[host]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for connection in self._by_host.values():
            connection.close()


def may_be_plain(host: str) -> bool:
    """Whether a registry may be contacted without TLS."""
    if is_loopback(urlsplit(f"//{host}").hostname or ""):
        return True
    allowed = os.environ.get(INSECURE, "").split(",")
    return host in [item.strip() for item in allowed]


def _host_of(address: str) -> str:
    return urlsplit(address).netloc.rpartition("@")[2]


def _why(error: Exception) -> str:
    """The end of a message; a client's own error may quote addresses with secrets."""
    import urllib3

    text = str(error).lower()
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "cannot be resolved"
    if "refused" in text:
        return "refused the connection"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "did not respond in time"
    return "dropped the connection"


def _of_proxy(host: str, error: urllib3.exceptions.ProxyError) -> BundlerError:
    """A proxy that requires another login will require it again."""
    if f" {_PROXY_LOGIN} " in f"{error.original_error} ":
        return CredentialsRefused(
            f"The proxy for {host} requires valid credentials.",
            hint="Add them to its URL: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
        )
    return Transient(f"The proxy for {host} cannot be used.")


@contextmanager
def _keeping_the_line(
    response: urllib3.BaseHTTPResponse,
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Reads the rest of a short answer, so that the connection can be reused."""
    try:
        yield response
        _start_of(response, _MAX_ERROR_BYTES)
    finally:
        response.close()


def _start_of(response: urllib3.BaseHTTPResponse, limit: int) -> bytes:
    import urllib3

    try:
        return response.read(limit) or b""
    except (urllib3.exceptions.HTTPError, OSError):
        return b""


def _said(raw: bytes) -> str:
    """The registry's reason: a code and a message, made safe for a terminal."""
    try:
        first = json.loads(raw)["errors"][0]
        words = [str(first.get(name) or "") for name in ("code", "message")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""
    text = ", ".join(word for word in words if word)
    shown = "".join(char for char in text if char.isprintable())[:_SHOWN_MESSAGE].rstrip(".")
    return f": {shown}" if shown else ""


def _wait(response: urllib3.BaseHTTPResponse) -> float | None:
    """The seconds after which the registry wants to be asked again."""
    import urllib3

    try:
        return urllib3.Retry().get_retry_after(response)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):  # no date, year or number
        return None
