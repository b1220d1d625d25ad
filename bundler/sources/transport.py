"""The transport recorder: what happens on the wire while a component fetches.

Runs inside the component's process: the standard library only. The libraries of vendors turn
refused connections into other errors, drop causes and swallow failed sub-requests, so that an
exception tells little and its absence nothing. The wire tells what happened.

It wraps the one function of each client library that makes an exchange: urllib3's ``urlopen``
(requests, botocore and most vendors stand on it), ``http.client`` itself, httpcore's pools
(httpx) and aiohttp's session, those that are imported and those that will be. A clone by GitPython
is an exchange too, with the method ``git-clone``: dagster-dbt fetches projects that way.

An *exchange* is a method, a URL and a body. It is reported as it begins (``request``: method, URL
without user info and query, and an identity by which the same exchange is known again), and when
it ends: ``response`` (status, content type, ``Retry-After``, ``Date``, how often the library
itself tried) or ``failure`` (the chain of exceptions), also when it fails while the body is read.
What a body turns out to be is told when it is parsed: ``not-json`` and
``graphql-errors``, with the exchange that this thread or task has had last. So is that an answer
says there is more of it (``more``), and that a later request asks for that (``followed``).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

Report = Callable[..., None]
Describe = Callable[[BaseException], list[dict[str, Any]]]

_MARK = "_state_bundler_wire"
_DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
_CLONE = "git-clone"
# The other way to write an ssh URL: git@host:group/repository.git
_SCP_LIKE = re.compile(r"(?:[^@/:]+@)?(?P<host>[\w.-]+):(?P<path>(?!//).+)")
# How answers call what the next page is asked for with.
_CURSORS = (
    "next_cursor",
    "nextCursor",
    "next_page_token",
    "nextPageToken",
    "nextPage",
    "@odata.nextLink",
)
_MOST_CURSORS = 1000
# The exchange that was answered last here: what this thread or task parses next is its body.
_answered: ContextVar[int] = ContextVar("_state_bundler_answered", default=0)


class _Recorder:
    """Where exchanges are told; nothing is, before `record` is called."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self.describe: Describe = lambda _: []
        self._numbers = itertools.count(1)
        self._cursors: dict[str, int] = {}
        self.local = threading.local()

    def begin(self, method: str, url: str, body: Any = None) -> int:
        if self.report is None:
            return 0
        number = next(self._numbers)
        self.report(
            "request", id=number, method=method, url=_public(url), same=_identity(method, url, body)
        )
        self._follow(url, body)
        return number

    def decoded(self, value: Any) -> None:
        """What this thread or task has parsed."""
        if self.report is None or not isinstance(value, dict):
            return
        if _has_graphql_errors(value):
            self.report("graphql-errors", id=_answered.get())
        cursor = _cursor(value)
        if cursor and len(self._cursors) < _MOST_CURSORS:
            self.report("followed", id=self._cursors.pop(cursor, 0))  # the same page, once more
            self._cursors[cursor] = _answered.get()
            self.report("more", id=_answered.get())

    def _follow(self, url: str, body: Any) -> None:
        if not self._cursors or self.report is None:
            return
        asked = f"{url} {unquote(url)} {body!r}"
        for cursor in [cursor for cursor in list(self._cursors) if cursor in asked]:
            self.report("followed", id=self._cursors.pop(cursor, 0))

    def answer(self, number: int, status: int, headers: Mapping[str, str], tries: int = 1) -> None:
        if self.report is None or not number:
            return
        _answered.set(number)
        self.report(
            "response",
            id=number,
            status=int(status),
            type=headers.get("content-type") or "",
            retry_after=headers.get("retry-after"),
            date=headers.get("date"),
            size=None if headers.get("content-encoding") else headers.get("content-length"),
            tries=tries,
        )

    def fail(self, number: int, error: BaseException, tries: int = 1) -> None:
        if self.report is None or not number:
            return
        with suppress(AttributeError):  # an exception with slots
            setattr(error, _MARK, number)
        self.report("failure", id=number, chain=self.describe(error), tries=tries)


_recorder = _Recorder()


def record(report: Report, describe: Describe) -> None:
    """From now on, tells every exchange."""
    _recorder.report = report
    _recorder.describe = describe


def install() -> None:
    """Wraps the client libraries that are imported, and each other one when it gets imported."""
    waiting = dict(_PATCHES)
    for name in _PATCHES:
        if name in sys.modules:
            waiting.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, _Waiting(waiting))
    _wrap(json.JSONDecodeError, "__init__", _not_json)
    _wrap(json.JSONDecoder, "decode", _decode)


def _not_json(original: Any) -> Any:
    # Vendors' libraries catch it and fail later with something that tells nothing, or go on.
    def __init__(error: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # it replaces one
        original(error, *args, **kwargs)
        if _recorder.report is not None:
            text = str(getattr(error, "doc", ""))
            size = len(text.encode("utf-8", "replace")) if text.strip() else 0
            _recorder.report("not-json", id=_answered.get(), size=size)

    return __init__


def _decode(original: Any) -> Any:
    # GraphQL answers 200 whatever happens; clients that do not look take a part for the whole.
    def decode(decoder: Any, *args: Any, **kwargs: Any) -> Any:
        value = original(decoder, *args, **kwargs)
        _recorder.decoded(value)
        return value

    return decode


def _has_graphql_errors(value: Any) -> bool:
    """Whether this is an answer with errors, other than mere warnings (which Tableau gives)."""
    errors = value.get("errors") if isinstance(value, dict) and "data" in value else None
    return isinstance(errors, list) and any(
        isinstance(error, dict)
        and "message" in error
        and (error.get("extensions") or {}).get("severity") != "WARNING"
        for error in errors
    )


def _cursor(value: dict[str, Any]) -> str:
    """What the answer says the next page is to be asked for with; empty on the last one."""
    for holder in (value, value.get("data"), value.get("meta"), value.get("pagination")):
        if isinstance(holder, dict):
            for name in _CURSORS:
                if isinstance(holder.get(name), str) and holder[name]:
                    return str(holder[name])
    return ""


class _Waiting:
    """Wraps a library at the end of its import."""

    def __init__(self, patches: dict[str, Callable[[ModuleType], None]]) -> None:
        self._patches = patches

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        patch = self._patches.pop(name, None)
        if patch is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                _after_import(spec, patch)
                return spec  # type: ignore[no-any-return]  # finders are not typed
        return None


def _after_import(spec: ModuleSpec, patch: Callable[[ModuleType], None]) -> None:
    loader = spec.loader
    if loader is None:
        return
    original = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        original(module)
        if module.__name__ == spec.name:  # a zip's loader serves many modules
            patch(module)

    loader.exec_module = exec_module  # type: ignore[method-assign]  # one loader a module


def _public(url: str) -> str:
    """The URL without user info, query and fragment, with its port."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        host = parts.hostname or ""
    except ValueError:
        return "an unreadable URL"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{port}{parts.path or '/'}"


def _identity(method: str, url: str, body: Any) -> str:
    """Knows the same exchange again, without keeping what it holds."""
    digest = hashlib.sha256(f"{method} {url.partition('#')[0]}\n".encode("utf-8", "replace"))
    if isinstance(body, (bytes, bytearray)):
        digest.update(body)
    elif body is not None:
        digest.update(str(body).encode("utf-8", "replace"))
    return digest.hexdigest()[:16]


@contextmanager
def _failing(number: int, caught: type[BaseException] = BaseException) -> Iterator[None]:
    """Tells what is raised meanwhile as the failure of this exchange."""
    try:
        yield
    except caught as error:
        _recorder.fail(number, error)
        raise


def _wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Puts a function around a method, where the library still has that method."""
    original = getattr(owner, name, None)
    if original is not None:
        setattr(owner, name, functools.wraps(original)(make(original)))


# --- urllib3 ----------------------------------------------------------------------------------


def _patch_urllib3_pool(module: ModuleType) -> None:
    _wrap(module.HTTPConnectionPool, "urlopen", _urlopen)


def _urlopen(original: Any) -> Any:
    # The library calls it again for each of its own retries: only the outermost call is told.
    def urlopen(pool: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        local = _recorder.local
        local.tries = getattr(local, "tries", 0) + 1
        if local.tries > 1:
            return original(pool, method, url, *args, **kwargs)
        full = url if "://" in url else f"{pool.scheme}://{_host(pool.host)}:{pool.port}{url}"
        body = args[0] if args else kwargs.get("body")
        number = _recorder.begin(method, full, body if isinstance(body, (bytes, str)) else None)
        try:
            response = original(pool, method, url, *args, **kwargs)
        except BaseException as error:
            _recorder.fail(number, error, local.tries)
            raise
        else:
            _recorder.answer(number, response.status, response.headers, local.tries)
            setattr(response, _MARK, number)
            return response
        finally:
            local.tries = 0

    return urlopen


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _patch_urllib3_response(module: ModuleType) -> None:
    _wrap(module.HTTPResponse, "_error_catcher", _error_catcher)


def _error_catcher(original: Any) -> Any:
    @contextmanager
    def catcher(response: Any) -> Iterator[None]:
        with _failing(getattr(response, _MARK, 0), Exception), original(response):
            yield

    return catcher


# --- http.client ------------------------------------------------------------------------------


def _patch_http_client(module: ModuleType) -> None:
    _wrap(module.HTTPConnection, "putrequest", _putrequest)
    _wrap(module.HTTPConnection, "endheaders", _endheaders)
    _wrap(module.HTTPConnection, "getresponse", _getresponse)
    _wrap(module.HTTPResponse, "read", _read)


def _putrequest(original: Any) -> Any:
    def putrequest(connection: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        if not getattr(_recorder.local, "tries", 0):  # else urllib3 tells it
            secure = hasattr(connection, "_context") or connection.default_port == 443  # noqa: PLR2004
            host = getattr(connection, "_tunnel_host", None) or connection.host
            port = getattr(connection, "_tunnel_port", None) or connection.port
            base = f"{'https' if secure else 'http'}://{_host(host)}:{port}"
            number = _recorder.begin(method, url if "://" in url else base + url)
            setattr(connection, _MARK, number)
        return original(connection, method, url, *args, **kwargs)

    return putrequest


def _endheaders(original: Any) -> Any:
    def endheaders(connection: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(connection, *args, **kwargs)
        except BaseException as error:
            _recorder.fail(_taken(connection), error)
            raise

    return endheaders


def _getresponse(original: Any) -> Any:
    def getresponse(connection: Any, *args: Any, **kwargs: Any) -> Any:
        number = _taken(connection)
        with _failing(number):
            response = original(connection, *args, **kwargs)
        if number:
            _recorder.answer(number, response.status, response.headers)
            setattr(response, _MARK, number)
        return response

    return getresponse


def _taken(connection: Any) -> int:
    number: int = getattr(connection, _MARK, 0)
    setattr(connection, _MARK, 0)
    return number


def _read(original: Any) -> Any:
    def read(response: Any, *args: Any, **kwargs: Any) -> Any:
        with _failing(getattr(response, _MARK, 0), Exception):
            return original(response, *args, **kwargs)

    return read


# --- httpcore ---------------------------------------------------------------------------------


def _patch_httpcore(module: ModuleType) -> None:
    _wrap(module.ConnectionPool, "handle_request", _handle_request)
    _wrap(module.AsyncConnectionPool, "handle_async_request", _handle_async_request)


def _handle_request(original: Any) -> Any:
    def handle_request(pool: Any, request: Any) -> Any:
        number = _begin_httpcore(request)
        with _failing(number):
            response = original(pool, request)
        return _answered_httpcore(number, response, _Stream)

    return handle_request


def _handle_async_request(original: Any) -> Any:
    async def handle_async_request(pool: Any, request: Any) -> Any:
        number = _begin_httpcore(request)
        with _failing(number):
            response = await original(pool, request)
        return _answered_httpcore(number, response, _AsyncStream)

    return handle_async_request


def _begin_httpcore(request: Any) -> int:
    url = request.url
    scheme = url.scheme.decode("ascii", "replace")
    port = url.port or _DEFAULT_PORTS.get(scheme, 0)
    target = url.target.decode("ascii", "replace")
    host = _host(url.host.decode("ascii", "replace"))
    # httpx hands a body of bytes over as a stream that it can give again.
    body = getattr(request.stream, "_stream", None)
    return _recorder.begin(
        request.method.decode("ascii", "replace"),
        f"{scheme}://{host}:{port}{target}",
        body if isinstance(body, bytes) else None,
    )


def _answered_httpcore(number: int, response: Any, stream: Callable[[Any, int], Any]) -> Any:
    _recorder.answer(number, response.status, _headers(response.headers))
    response.stream = stream(response.stream, number)
    return response


def _headers(headers: Any) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers or ()
    }


class _Stream:
    def __init__(self, inner: Any, number: int) -> None:
        self._inner = inner
        self._number = number

    def __iter__(self) -> Iterator[bytes]:
        with _failing(self._number, Exception):
            yield from self._inner

    def close(self) -> None:
        if hasattr(self._inner, "close"):
            self._inner.close()


class _AsyncStream:
    def __init__(self, inner: Any, number: int) -> None:
        self._inner = inner
        self._number = number

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _failing(self._number, Exception):
            async for part in self._inner:
                yield part

    async def aclose(self) -> None:
        if hasattr(self._inner, "aclose"):
            await self._inner.aclose()


# --- aiohttp ----------------------------------------------------------------------------------


def _patch_aiohttp(module: ModuleType) -> None:
    _wrap(module.ClientSession, "_request", _aiohttp_request)
    _wrap(module.ClientResponse, "read", _aiohttp_read)


def _aiohttp_request(original: Any) -> Any:
    async def request(session: Any, method: str, url: Any, **kwargs: Any) -> Any:
        base = getattr(session, "_base_url", None)
        full = str(url) if base is None or "://" in str(url) else str(base.join(type(base)(url)))
        body = kwargs.get("data") if kwargs.get("data") is not None else kwargs.get("json")
        query = kwargs.get("params")
        number = _recorder.begin(method, full, (body, query) if body or query else None)
        with _failing(number):
            response = await original(session, method, url, **kwargs)
        _recorder.answer(number, response.status, response.headers)
        setattr(response, _MARK, number)
        return response

    return request


def _aiohttp_read(original: Any) -> Any:
    async def read(response: Any) -> Any:
        with _failing(getattr(response, _MARK, 0), Exception):
            return await original(response)

    return read


# --- GitPython --------------------------------------------------------------------------------


def _patch_gitpython(module: ModuleType) -> None:
    original = getattr(module.Repo.clone_from, "__func__", None)
    if original is not None:
        module.Repo.clone_from = classmethod(functools.wraps(original)(_clone_from(original)))


def _clone_from(original: Any) -> Any:
    def clone_from(cls: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        full = _clone_url(str(url))
        number = _recorder.begin(_CLONE, full) if urlsplit(full).hostname else 0
        try:
            repository = original(cls, url, *args, **kwargs)
        except BaseException as error:
            _recorder.fail(number, error)
            raise
        _recorder.answer(number, 200, {})
        return repository

    return clone_from


def _clone_url(url: str) -> str:
    found = None if "://" in url else _SCP_LIKE.fullmatch(url)
    return f"ssh://{found['host']}/{found['path'].lstrip('/')}" if found else url


_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "http.client": _patch_http_client,
    "urllib3.connectionpool": _patch_urllib3_pool,
    "urllib3.response": _patch_urllib3_response,
    "httpcore": _patch_httpcore,
    "aiohttp.client": _patch_aiohttp,
    "git.repo.base": _patch_gitpython,
}
