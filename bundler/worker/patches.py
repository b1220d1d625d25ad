"""The patches: wraps client libraries, so that the recorder hears of every exchange.

Runs inside the component's process: the standard library only, and whatever the component imports.

It wraps the one function of each client library that makes an exchange: urllib3's ``urlopen``
(requests, botocore and most vendors stand on it), ``http.client`` itself, httpcore's pools
(httpx) and aiohttp's session, those that are imported and those that will be. A clone by GitPython
is an exchange too, with the method ``git-clone``: dagster-dbt fetches projects that way. What
parses answers is wrapped likewise: the standard library's ``json``.
"""

from __future__ import annotations

import functools
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from bundler.worker.recorder import Recorder

    Patch = Callable[[ModuleType, Recorder], None]

# On a connection or response: the number of its exchange.
_MARK = "_state_bundler_exchange"
_CLONE = "git-clone"
# The other way to write an ssh URL: git@host:group/repository.git
_SCP_LIKE = re.compile(r"(?:[^@/:]+@)?(?P<host>[\w.-]+):(?P<path>(?!//).+)")
# How often this thread is inside urllib3, which stands on http.client and calls itself to retry.
_urllib3 = threading.local()


def install(recorder: Recorder) -> None:
    """Wraps the client libraries that are imported, and each other one when it gets imported."""
    waiting = dict(_PATCHES)
    for name in _PATCHES:
        if name in sys.modules:
            waiting.pop(name)(sys.modules[name], recorder)
    sys.meta_path.insert(0, _Waiting(waiting, recorder))


class _Waiting:
    """Wraps a library at the end of its import."""

    def __init__(self, patches: dict[str, Patch], recorder: Recorder) -> None:
        self._patches = patches
        self._recorder = recorder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        patch = self._patches.pop(name, None)
        if patch is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                _after_import(spec, patch, self._recorder)
                return spec  # type: ignore[no-any-return]  # finders are not typed
        return None


def _after_import(spec: ModuleSpec, patch: Patch, recorder: Recorder) -> None:
    loader = spec.loader
    if loader is None:
        return
    original = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        original(module)
        if module.__name__ == spec.name:  # a zip's loader serves many modules
            patch(module, recorder)

    loader.exec_module = exec_module  # type: ignore[method-assign]  # one loader a module


def _wrap(owner: Any, name: str, make: Callable[[Any, Recorder], Any], recorder: Recorder) -> None:
    """Puts a function around a method, where the library still has that method."""
    original = getattr(owner, name, None)
    if original is not None:
        setattr(owner, name, functools.wraps(original)(make(original, recorder)))


# --- json -------------------------------------------------------------------------------------


def _patch_json(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module.JSONDecodeError, "__init__", _not_json, recorder)
    _wrap(module.JSONDecoder, "decode", _decode, recorder)


def _not_json(original: Any, recorder: Recorder) -> Any:
    # Vendors' libraries catch it and fail later with something that tells nothing, or go on.
    def __init__(error: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # it replaces one
        original(error, *args, **kwargs)
        recorder.not_json(getattr(error, "doc", ""))

    return __init__


def _decode(original: Any, recorder: Recorder) -> Any:
    # GraphQL answers 200 whatever happens; clients that do not look take a part for the whole.
    def decode(decoder: Any, *args: Any, **kwargs: Any) -> Any:
        value = original(decoder, *args, **kwargs)
        recorder.decoded(value)
        return value

    return decode


# --- urllib3 ----------------------------------------------------------------------------------


def _patch_urllib3_pool(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module.HTTPConnectionPool, "urlopen", _urlopen, recorder)


def _urlopen(original: Any, recorder: Recorder) -> Any:
    # The library calls it again for each of its own retries: only the outermost call is told.
    def urlopen(pool: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        _urllib3.tries = getattr(_urllib3, "tries", 0) + 1
        if _urllib3.tries > 1:
            return original(pool, method, url, *args, **kwargs)
        full = url if "://" in url else f"{pool.scheme}://{_host(pool.host)}:{pool.port}{url}"
        body = args[0] if args else kwargs.get("body")
        number = recorder.begin(method, full, body if isinstance(body, (bytes, str)) else None)
        try:
            response = original(pool, method, url, *args, **kwargs)
        except BaseException as error:
            recorder.fail(number, error, _urllib3.tries)
            raise
        else:
            recorder.answer(number, response.status, response.headers, _urllib3.tries)
            setattr(response, _MARK, number)
            return response
        finally:
            _urllib3.tries = 0

    return urlopen


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _patch_urllib3_response(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module.HTTPResponse, "_error_catcher", _error_catcher, recorder)


def _error_catcher(original: Any, recorder: Recorder) -> Any:
    @contextmanager
    def catcher(response: Any) -> Iterator[None]:
        with recorder.failing(getattr(response, _MARK, 0), Exception), original(response):
            yield

    return catcher


# --- http.client ------------------------------------------------------------------------------


def _patch_http_client(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module.HTTPConnection, "putrequest", _putrequest, recorder)
    _wrap(module.HTTPConnection, "endheaders", _endheaders, recorder)
    _wrap(module.HTTPConnection, "getresponse", _getresponse, recorder)
    _wrap(module.HTTPResponse, "read", _read, recorder)


def _putrequest(original: Any, recorder: Recorder) -> Any:
    def putrequest(connection: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        if not getattr(_urllib3, "tries", 0):  # else urllib3 tells it
            secure = hasattr(connection, "_context") or connection.default_port == 443  # noqa: PLR2004
            host = getattr(connection, "_tunnel_host", None) or connection.host
            port = getattr(connection, "_tunnel_port", None) or connection.port
            base = f"{'https' if secure else 'http'}://{_host(host)}:{port}"
            number = recorder.begin(method, url if "://" in url else base + url)
            setattr(connection, _MARK, number)
        return original(connection, method, url, *args, **kwargs)

    return putrequest


def _endheaders(original: Any, recorder: Recorder) -> Any:
    def endheaders(connection: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(connection, *args, **kwargs)
        except BaseException as error:
            recorder.fail(_taken(connection), error)
            raise

    return endheaders


def _getresponse(original: Any, recorder: Recorder) -> Any:
    def getresponse(connection: Any, *args: Any, **kwargs: Any) -> Any:
        number = _taken(connection)
        with recorder.failing(number):
            response = original(connection, *args, **kwargs)
        if number:
            recorder.answer(number, response.status, response.headers)
            setattr(response, _MARK, number)
        return response

    return getresponse


def _taken(connection: Any) -> int:
    number: int = getattr(connection, _MARK, 0)
    setattr(connection, _MARK, 0)
    return number


def _read(original: Any, recorder: Recorder) -> Any:
    def read(response: Any, *args: Any, **kwargs: Any) -> Any:
        with recorder.failing(getattr(response, _MARK, 0), Exception):
            return original(response, *args, **kwargs)

    return read


# --- httpcore ---------------------------------------------------------------------------------


def _patch_httpcore(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module.ConnectionPool, "handle_request", _handle_request, recorder)
    _wrap(module.AsyncConnectionPool, "handle_async_request", _handle_async_request, recorder)


def _handle_request(original: Any, recorder: Recorder) -> Any:
    def handle_request(pool: Any, request: Any) -> Any:
        number = _begin_httpcore(request, recorder)
        with recorder.failing(number):
            response = original(pool, request)
        _answered_httpcore(number, response, recorder)
        response.stream = _Stream(response.stream, number, recorder)
        return response

    return handle_request


def _handle_async_request(original: Any, recorder: Recorder) -> Any:
    async def handle_async_request(pool: Any, request: Any) -> Any:
        number = _begin_httpcore(request, recorder)
        with recorder.failing(number):
            response = await original(pool, request)
        _answered_httpcore(number, response, recorder)
        response.stream = _AsyncStream(response.stream, number, recorder)
        return response

    return handle_async_request


def _begin_httpcore(request: Any, recorder: Recorder) -> int:
    url = request.url
    scheme = url.scheme.decode("ascii", "replace")
    port = url.port or (443 if scheme == "https" else 80)
    target = url.target.decode("ascii", "replace")
    host = _host(url.host.decode("ascii", "replace"))
    # httpx hands a body of bytes over as a stream that it can give again.
    body = getattr(request.stream, "_stream", None)
    return recorder.begin(
        request.method.decode("ascii", "replace"),
        f"{scheme}://{host}:{port}{target}",
        body if isinstance(body, bytes) else None,
    )


def _answered_httpcore(number: int, response: Any, recorder: Recorder) -> None:
    pairs = response.headers or ()
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
    recorder.answer(number, response.status, headers)


class _Stream:
    def __init__(self, inner: Any, number: int, recorder: Recorder) -> None:
        self._inner = inner
        self._number = number
        self._recorder = recorder

    def __iter__(self) -> Iterator[bytes]:
        with self._recorder.failing(self._number, Exception):
            yield from self._inner

    def close(self) -> None:
        if hasattr(self._inner, "close"):
            self._inner.close()


class _AsyncStream:
    def __init__(self, inner: Any, number: int, recorder: Recorder) -> None:
        self._inner = inner
        self._number = number
        self._recorder = recorder

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._recorder.failing(self._number, Exception):
            async for part in self._inner:
                yield part

    async def aclose(self) -> None:
        if hasattr(self._inner, "aclose"):
            await self._inner.aclose()


# --- aiohttp ----------------------------------------------------------------------------------


def _patch_aiohttp(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module.ClientSession, "_request", _aiohttp_request, recorder)
    _wrap(module.ClientResponse, "read", _aiohttp_read, recorder)


def _aiohttp_request(original: Any, recorder: Recorder) -> Any:
    async def request(session: Any, method: str, url: Any, **kwargs: Any) -> Any:
        base = getattr(session, "_base_url", None)
        full = str(url) if base is None or "://" in str(url) else str(base.join(type(base)(url)))
        body = kwargs.get("data") if kwargs.get("data") is not None else kwargs.get("json")
        query = kwargs.get("params")
        number = recorder.begin(method, full, (body, query) if body or query else None)
        with recorder.failing(number):
            response = await original(session, method, url, **kwargs)
        recorder.answer(number, response.status, response.headers)
        setattr(response, _MARK, number)
        return response

    return request


def _aiohttp_read(original: Any, recorder: Recorder) -> Any:
    async def read(response: Any) -> Any:
        with recorder.failing(getattr(response, _MARK, 0), Exception):
            return await original(response)

    return read


# --- GitPython --------------------------------------------------------------------------------


def _patch_gitpython(module: ModuleType, recorder: Recorder) -> None:
    original = getattr(module.Repo.clone_from, "__func__", None)
    if original is not None:
        module.Repo.clone_from = classmethod(
            functools.wraps(original)(_clone_from(original, recorder))
        )


def _clone_from(original: Any, recorder: Recorder) -> Any:
    def clone_from(cls: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        full = _clone_url(str(url))
        number = recorder.begin(_CLONE, full) if urlsplit(full).hostname else 0
        try:
            repository = original(cls, url, *args, **kwargs)
        except BaseException as error:
            recorder.fail(number, error)
            raise
        recorder.answer(number, 200, {})
        return repository

    return clone_from


def _clone_url(url: str) -> str:
    found = None if "://" in url else _SCP_LIKE.fullmatch(url)
    return f"ssh://{found['host']}/{found['path'].lstrip('/')}" if found else url


_PATCHES: dict[str, Patch] = {
    "json": _patch_json,
    "http.client": _patch_http_client,
    "urllib3.connectionpool": _patch_urllib3_pool,
    "urllib3.response": _patch_urllib3_response,
    "httpcore": _patch_httpcore,
    "aiohttp.client": _patch_aiohttp,
    "git.repo.base": _patch_gitpython,
}
