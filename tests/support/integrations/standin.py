"""A vendor's API on loopback, for the vendor's own unmodified client library.

A stand-in is a CONNECT proxy and the TLS server behind it in one: the library learns of it by
``HTTPS_PROXY`` and a CA bundle (`StandIn.environment`), and reaches ``https://api.vendor.com`` as
ever. Plain HTTP and direct requests to `StandIn.url` work as well. A vendor's module subclasses
`StandIn`, names the hosts, and lists `Endpoint` values.

Many *cases* run concurrently against one stand-in, so that one refresh can try every fault: a case
is what one component sees. `StandIn.case_of` determines which case a request belongs to, by
default the first label of its host: ``looker-503.example`` is the case ``looker-503``.

A *fault* of a case happens at one endpoint, or at all of them (``*``):

=============  ===============================================================================
401 … 503      that status, in the vendor's own words; 429 with ``Retry-After: 1``
html           200 and a log-in page
cut            200 and the first half of the body, as if it were whole
empty          200 and the endpoint's own way to say "nothing"
missing-page   the second page, and each one after it, answers 404
empty-page     the second page, and each one after it, has no items
refused        the connection is closed, and the host refuses every one from then on
hanging        nothing is ever answered
dripping       the answer comes a byte at a time
=============  ===============================================================================
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

import trustme

if TYPE_CHECKING:
    from typing_extensions import Self

STATUSES = ("401", "403", "404", "429", "500", "503")
BODIES = ("html", "cut", "empty")
PAGES = ("missing-page", "empty-page")
LINES = ("refused", "hanging", "dripping")
FAULTS = (*STATUSES, *BODIES, *PAGES, *LINES)
# Before the name of the vendor's class: a class below it, and one below that with a mixin.
SUBCLASSES = ("Our", "Team")

_HTML = b"<!doctype html>\n<title>Sign in</title>\n<h1>Sign in to continue</h1>\n"
_DRIP_SECONDS = 0.5
_LONGEST_IDLE_SECONDS = 120.0
_RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True)
class Case:
    """What one component sees. size: how many of everything its account has.

    endpoint: the name of the one that is faulty, or ``*``. times: how often the fault happens
    before all is well again; None means forever. subclass: one of `SUBCLASSES`, else the vendor's
    own class.
    """

    name: str
    fault: str = ""
    endpoint: str = "*"
    size: int = 300
    times: int | None = None
    subclass: str = ""


@dataclass(frozen=True)
class Request:
    """One request, its body read. path: decoded, without the query. parts: by the endpoint.

    made: what requests of the same case have created at the vendor.
    """

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    case: Case = field(default_factory=lambda: Case("none"))
    parts: Mapping[str, str] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @cached_property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))

    @property
    def bearer(self) -> str:
        """The token of ``Authorization: Bearer …`` or ``token …``."""
        return self.headers.get("authorization", "").partition(" ")[2]


@dataclass(frozen=True)
class Answer:
    """body: bytes as they are; anything else as JSON."""

    body: Any = b""
    status: int = 200
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Make = Callable[[Request], Any]


@dataclass(frozen=True)
class Endpoint:
    """One of a vendor's endpoints.

    path: with ``{name}`` for one part; it may begin with a host, where the vendor has several.
    answer: gives the body, or an `Answer`. empty: how this one says "nothing". page: the number
    of the page that is asked for, from 1; None where there are no pages. matches: distinguishes
    what has the same path (GraphQL). signed_in: whether a token must be shown. own: further faults,
    by name, that only this vendor knows.
    """

    name: str
    method: str
    path: str
    answer: Make
    empty: Make = lambda _: {}
    page: Callable[[Request], int] | None = None
    matches: Callable[[Request], bool] = lambda _: True
    signed_in: bool = True
    own: Mapping[str, Make] = field(default_factory=dict)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        literal = re.split(r"\{\w+\}", self.path)
        names = re.findall(r"\{(\w+)\}", self.path)
        pattern = re.escape(literal[0])
        for name, text in zip(names, literal[1:], strict=True):
            pattern += f"(?P<{name}>[^/]+){re.escape(text)}"
        return re.compile(pattern)

    def parts_of(self, request: Request) -> dict[str, str] | None:
        """The variable parts of the request's path; None if it is not for this endpoint."""
        if request.method != self.method:
            return None
        path = request.path if self.path.startswith("/") else f"{request.host}{request.path}"
        found = self._pattern.fullmatch(path)
        return found.groupdict() if found and self.matches(request) else None


@dataclass(frozen=True)
class Fault:
    """A fault at one endpoint or at all of them, and the case that stands for it.

    subclass: one of `SUBCLASSES`, where the component is not of the vendor's own class.
    """

    fault: str
    endpoint: str
    subclass: str = ""

    def __str__(self) -> str:
        of = f" of {self.subclass} subclass" if self.subclass else ""
        return f"{self.fault} at {self.endpoint}{of}"

    @property
    def case(self) -> str:
        name = f"{self.fault}-at-{'all' if self.endpoint == '*' else self.endpoint}"
        return f"{name}-{self.subclass.lower()}" if self.subclass else name


class StandIn:
    """Serves one vendor's endpoints; a context manager.

    well: no fault happens while it is set. counts: requests by case and endpoint, all that were
    read. strangers: requested hosts that are not the vendor's. unknown: requests that no
    endpoint knows. rate: requests a second that a case may make before it is answered 429; None
    for as many as it likes.
    """

    # Patterns of the vendor's hosts, and what it answers.
    hosts: ClassVar[tuple[str, ...]] = ()
    endpoints: ClassVar[tuple[Endpoint, ...]] = ()
    # The vendor's name in `tests/projects/integration_<name>`, and its library.
    name: ClassVar[str] = ""
    integration: ClassVar[str] = ""
    # The list in `tests/requirements` that the project is installed from; else the vendor's own.
    requirements: ClassVar[str] = ""
    # What a PEX needs besides the library, and whether more than the vendor is asked for anything.
    packages: ClassVar[tuple[str, ...]] = ()
    asks_others: ClassVar[bool] = False
    # What a table calls it, where the name is not enough.
    title: ClassVar[str] = ""
    # The exit codes of faults that mean something else for this vendor.
    codes: ClassVar[Mapping[str, frozenset[int]]] = {}
    # What the project reads: all values that say "canary" must never be seen again.
    variables: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *cases: Case, rate: int | None = None) -> None:
        self.cases = {case.name: case for case in cases}
        self.rate = rate
        self.well = False
        self.counts: Counter[tuple[str, str]] = Counter()
        self.strangers: set[str] = set()
        self.unknown: list[str] = []
        self.made: dict[str, dict[str, Any]] = {}
        self._happened: Counter[str] = Counter()
        self._gone: set[str] = set()
        self._seconds: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._ca = trustme.CA()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="stand-in-")
        self._bundle = Path(self._folder.name) / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self._bundle))
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    # --- what a vendor's module may say ---------------------------------------------------------

    def case_of(self, request: Request) -> str:
        """The name of the case that a request belongs to."""
        return request.host.partition(".")[0]

    def path_of(self, request: Request) -> str:
        """The path by which endpoints know a request, where cases are distinguished by it, too."""
        return request.path

    def refusal(self, request: Request, status: int) -> Answer:
        """An error in the vendor's own words."""
        phrase = HTTPStatus(status).phrase
        return Answer({"error": phrase, "status": status, "path": request.path}, status)

    def is_signed_in(self, request: Request) -> bool:
        """Whether the request shows a token that this stand-in has given."""
        return bool(request.bearer)

    def component(self, case: Case) -> str:
        """The ``defs.yaml`` of a component that sees this case."""
        raise NotImplementedError

    def key(self, case: Case) -> str:
        """The component's key."""
        raise NotImplementedError

    def host(self, case: Case, endpoint: str) -> str:
        """The host that a message about this endpoint names."""
        return case.name

    def assets(self, case: Case) -> set[str]:
        """The assets of a component that sees this case, as Dagster writes their keys."""
        raise NotImplementedError

    # --- for tests ------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """Sends a program and all of its libraries here; other hosts are refused."""
        bundle = str(self._bundle)
        proxies = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY")
        bundles = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
        return {
            **dict.fromkeys(proxies, self.url),
            **dict.fromkeys(bundles, bundle),
            "NO_PROXY": "",
            "no_proxy": "",
        }

    def called(self, case: str = "") -> Counter[str]:
        """How often each endpoint was called, in one case or in all of them."""
        found: Counter[str] = Counter()
        with self._lock:
            for (name, endpoint), count in self.counts.items():
                if case in ("", name):
                    found[endpoint] += count
        return found

    @classmethod
    def faults(cls) -> list[Fault]:
        """Every fault at all endpoints together and at each single one, where it can happen."""
        found = [Fault(fault, "*") for fault in FAULTS if fault not in PAGES]
        for endpoint in cls.endpoints:
            kinds = FAULTS if endpoint.page else [kind for kind in FAULTS if kind not in PAGES]
            found += [Fault(fault, endpoint.name) for fault in (*kinds, *endpoint.own)]
        return found

    # --- the server -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._folder.cleanup()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.settimeout(_LONGEST_IDLE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """One connection: perhaps a CONNECT first, then requests until either side has enough."""
        try:
            request = _read(connection, "")
            host = ""
            if request is not None and request.method == "CONNECT":
                host = request.host
                if self._refuses(host):
                    connection.sendall(_head(502, {"Content-Length": "0"}))
                    return
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                connection = self._context(host).wrap_socket(connection, server_side=True)
                request = _read(connection, host)
            while request is not None and self._answer(connection, request):
                request = _read(connection, host)
        except (OSError, ValueError):
            return  # the other side went away, or spoke no HTTP
        finally:
            connection.close()

    def _refuses(self, host: str) -> bool:
        if not any(re.fullmatch(pattern, host) for pattern in self.hosts):
            with self._lock:
                self.strangers.add(host)
            return True
        return host in self._gone or self._is_gone_from_the_start(host)

    def _is_gone_from_the_start(self, host: str) -> bool:
        case = self.cases.get(self.case_of(Request("CONNECT", host, "", {}, {}, b"")))
        refused = ("refused", "*")
        return not self.well and case is not None and (case.fault, case.endpoint) == refused

    def _context(self, host: str) -> ssl.SSLContext:
        with self._lock:
            if host not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._ca.issue_cert(host).configure_cert(context)
                self._contexts[host] = context
            return self._contexts[host]

    def _answer(self, connection: socket.socket, request: Request) -> bool:
        """Answers one request. Returns whether the connection goes on."""
        case = self.cases.get(self.case_of(request), Case("none"))
        made = self.made.setdefault(case.name, {})
        request = replace(request, case=case, path=self.path_of(request), made=made)
        endpoint = self._endpoint_of(request)
        if endpoint is None:
            with self._lock:
                self.unknown.append(f"{request.method} {request.host}{request.path}")
            return _send(connection, self.refusal(request, 404))
        request = replace(request, parts=endpoint.parts_of(request) or {})
        with self._lock:
            self.counts[case.name, endpoint.name] += 1
        fault = self._fault_of(case, endpoint, request)
        if fault in ("refused", "hanging", "dripping"):
            return self._break(connection, fault, endpoint, request)
        return _send(connection, self._faulted(fault, endpoint, request))

    def _endpoint_of(self, request: Request) -> Endpoint | None:
        return next((one for one in self.endpoints if one.parts_of(request) is not None), None)

    def _fault_of(self, case: Case, endpoint: Endpoint, request: Request) -> str:
        """The fault that happens to this request; empty if none."""
        if self.well or not case.fault or case.endpoint not in ("*", endpoint.name):
            return ""
        if case.fault in PAGES and (endpoint.page is None or endpoint.page(request) < 2):
            return ""
        with self._lock:
            self._happened[case.name] += 1
            over = case.times is not None and self._happened[case.name] > case.times
        return "" if over else case.fault

    def _faulted(self, fault: str, endpoint: Endpoint, request: Request) -> Answer:
        if fault in STATUSES or fault == "missing-page":
            return self._status(int(fault) if fault.isdigit() else 404, request)
        if fault == "html":
            return Answer(_HTML, kind="text/html; charset=utf-8")
        if self._exceeds_rate(request.case):
            return self._status(429, request)
        if endpoint.signed_in and not self.is_signed_in(request):
            return self._status(401, request)
        if fault in endpoint.own:
            return _as_answer(endpoint.own[fault](request))
        if fault in ("empty", "empty-page"):
            return _as_answer(endpoint.empty(request))
        answer = _as_answer(endpoint.answer(request))
        if fault == "cut":
            return Answer(answer.data[: len(answer.data) // 2], answer.status, answer.kind)
        return answer

    def _status(self, status: int, request: Request) -> Answer:
        answer = self.refusal(request, status)
        if status != HTTPStatus.TOO_MANY_REQUESTS:
            return answer
        headers = {**answer.headers, "Retry-After": str(_RETRY_AFTER_SECONDS)}
        return Answer(answer.body, status, answer.kind, headers)

    def _exceeds_rate(self, case: Case) -> bool:
        if self.rate is None:
            return False
        with self._lock:
            second = (case.name, int(time.monotonic()))
            self._seconds[second] += 1
            return self._seconds[second] > self.rate

    def _break(
        self, connection: socket.socket, fault: str, endpoint: Endpoint, request: Request
    ) -> bool:
        if fault == "refused":
            whose = self.case_of(Request("CONNECT", request.host, "", {}, {}, b""))
            if (endpoint.name, request.case.name) == (request.case.endpoint, whose):
                self._gone.add(request.host)  # else the host is that of all cases
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault == "hanging":
            self._stopped.wait(_LONGEST_IDLE_SECONDS)
        else:
            answer = self._faulted("", endpoint, request)
            data = answer.data
            headers = {"Content-Type": answer.kind, "Content-Length": str(len(data))}
            connection.sendall(_head(answer.status, {**headers, **answer.headers}))
            for byte in data:
                connection.sendall(bytes([byte]))
                if self._stopped.wait(_DRIP_SECONDS):
                    break
        return False


def _as_answer(made: Any) -> Answer:
    return made if isinstance(made, Answer) else Answer(made)


def _read(connection: socket.socket, host: str) -> Request | None:
    """The next request; None at the end. host: the one that CONNECT has named."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    if headers.get("expect") == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < int(headers.get("content-length", 0)):
        chunk = connection.recv(65536)
        if not chunk:
            return None
        body += chunk
    if method == "CONNECT":
        return Request(method, target.rpartition(":")[0], "", {}, headers, b"")
    url = urlsplit(target)
    named = host or url.hostname or headers.get("host", "").partition(":")[0]
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return Request(method, named, unquote(url.path), query, headers, body)


def _send(connection: socket.socket, answer: Answer) -> bool:
    data = answer.data
    headers = {"Content-Type": answer.kind, "Content-Length": str(len(data)), **answer.headers}
    connection.sendall(_head(answer.status, headers) + data)
    return True


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
