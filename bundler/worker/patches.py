"""The patches: wraps client libraries, so that the recorder hears of every exchange.

Runs inside the component's process: the standard library only, and whatever the component imports.

It wraps the one function of each client library that makes an exchange: urllib3's ``urlopen``
(requests, botocore and most vendors use it), ``http.client`` itself, httpcore's pools
(httpx) and aiohttp's session, those that are imported and those that will be; and what bodies are
read with. A clone by GitPython is an exchange too, with the method ``git-clone``: dagster-dbt
fetches projects that way. What parses answers is wrapped likewise: the standard library's ``json``.

A library that lacks one of these is reported as ``blind``: that fails every key.
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
    from bundler.worker.bodies import Body
    from bundler.worker.recorder import RecordedRequest, Recorder

    Patch = Callable[[ModuleType, Recorder], None]

# Attributes: a connection's request, and a response's body.
_MARK = "_state_bundler_exchange"
_CLONE = "git-clone"
# The other way to write an ssh URL: git@host:group/repository.git
_SCP_LIKE = re.compile(r"(?:[^@/:]+@)?(?P<host>[\w.-]+):(?P<path>(?!//).+)")
# How deep this thread is inside urllib3, which uses http.client and calls itself to retry.
_urllib3 = threading.local()


def install(recorder: Recorder) -> None:
    """Wraps the client libraries that are imported, and every other one when it is imported."""
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


def _wrap(
    module: ModuleType,
    hook: str,
    make: Callable[[Any, Recorder], Any],
    recorder: Recorder,
    *,
    required: bool = True,
) -> None:
    """Wraps a method (``Class.method``) of a library.

    required: False if not every supported version has it.
    """
    owner, _, name = hook.partition(".")
    kind = getattr(module, owner, None)
    original = getattr(kind, name, None)
    if original is not None:
        setattr(kind, name, functools.wraps(original)(make(original, recorder)))
    elif required:
        recorder.blind(module.__name__.partition(".")[0], f"{module.__name__}.{hook}")


# --- json -------------------------------------------------------------------------------------


def _patch_json(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module, "JSONDecodeError.__init__", _not_json, recorder)
    _wrap(module, "JSONDecoder.decode", _decode, recorder)


def _not_json(original: Any, recorder: Recorder) -> Any:
    # Vendors' libraries catch it and fail later with a misleading error, or continue.
    def __init__(error: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # it replaces one
        original(error, *args, **kwargs)
        recorder.not_json(getattr(error, "doc", ""))

    return __init__


def _decode(original: Any, recorder: Recorder) -> Any:
    # GraphQL always answers 200; clients that do not check mistake a part for the whole.
    def decode(decoder: Any, *args: Any, **kwargs: Any) -> Any:
        value = original(decoder, *args, **kwargs)
        recorder.decoded(value)
        return value

    return decode


# --- urllib3 ----------------------------------------------------------------------------------


def _patch_urllib3_pool(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module, "HTTPConnectionPool.urlopen", _urlopen, recorder)


def _urlopen(original: Any, recorder: Recorder) -> Any:
    # The library calls it again for each of its own retries: only the outermost call is reported.
    def urlopen(pool: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        _urllib3.tries = getattr(_urllib3, "tries", 0) + 1
        if _urllib3.tries > 1:
            return original(pool, method, url, *args, **kwargs)
        full = url if "://" in url else f"{pool.scheme}://{_host(pool.host)}:{pool.port}{url}"
        body = args[0] if args else kwargs.get("body")
        headers = args[1] if len(args) > 1 else kwargs.get("headers")
        request = recorder.begin(
            method, full, body if isinstance(body, (bytes, str)) else None, headers or pool.headers
        )
        try:
            response = original(pool, method, url, *args, **kwargs)
        except BaseException as error:
            recorder.fail(request.number, error, _urllib3.tries)
            raise
        else:
            judged = recorder.answer(request, response.status, response.headers, _urllib3.tries)
            setattr(response, _MARK, judged)
            if judged is not None and kwargs.get("preload_content", True):
                judged.decoded = True  # it has been read already
                judged.take(response.data)
                _end_urllib3(response, judged)
            return response
        finally:
            _urllib3.tries = 0

    return urlopen


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _patch_urllib3_response(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module, "HTTPResponse.read", _read_urllib3, recorder)
    _wrap(module, "HTTPResponse.read1", _read_urllib3, recorder, required=False)  # since 2.1
    _wrap(module, "HTTPResponse.stream", _stream_urllib3, recorder)
    _wrap(module, "HTTPResponse.read_chunked", _stream_urllib3, recorder)
    _wrap(module, "HTTPResponse._decode", _decode_urllib3, recorder)


def _read_urllib3(original: Any, recorder: Recorder) -> Any:
    def read(response: Any, amt: Any = None, *args: Any, **kwargs: Any) -> Any:
        judged: Body | None = getattr(response, _MARK, None)
        if judged is None or judged.ended or judged.depth:
            return original(response, amt, *args, **kwargs)
        with _outermost(judged), recorder.failing(judged.number):
            data = original(response, amt, *args, **kwargs)
        _take_urllib3(response, judged, data, args[0] if args else kwargs.get("decode_content"))
        if (not data and amt != 0) or amt is None or amt < 0:
            _end_urllib3(response, judged)
        return data

    return read


def _stream_urllib3(original: Any, recorder: Recorder) -> Any:
    def stream(response: Any, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        parts = original(response, *args, **kwargs)
        judged: Body | None = getattr(response, _MARK, None)
        if judged is None or judged.ended or judged.depth:
            return parts  # type: ignore[no-any-return]  # the library's own iterator
        decodes = args[1] if len(args) > 1 else kwargs.get("decode_content")
        return _streamed_urllib3(response, judged, parts, decodes, recorder)

    return stream


def _streamed_urllib3(
    response: Any, judged: Body, parts: Iterator[bytes], decodes: bool | None, recorder: Recorder
) -> Iterator[bytes]:
    while True:
        with _outermost(judged), recorder.failing(judged.number):
            part = next(parts, None)
        if part is None:
            break
        _take_urllib3(response, judged, part, decodes)
        yield part
    _end_urllib3(response, judged)


def _take_urllib3(response: Any, judged: Body, data: bytes, decodes: bool | None) -> None:
    judged.decoded = bool(response.decode_content if decodes is None else decodes)
    if judged.decoded:
        judged.take(data)
    else:
        judged.take_coded(data)


def _end_urllib3(response: Any, judged: Body) -> None:
    # Version 1 does not compare what was received with what was promised.
    judged.end(missing=bool(response.length_remaining))


def _decode_urllib3(original: Any, recorder: Recorder) -> Any:  # noqa: ARG001  # as all the others
    # The only function that handles compressed bytes on every way to read them.
    def _decode(response: Any, data: bytes, *args: Any, **kwargs: Any) -> Any:
        judged: Body | None = getattr(response, _MARK, None)
        if judged is not None:
            judged.count_coded(data)
        return original(response, data, *args, **kwargs)

    return _decode


@contextmanager
def _outermost(judged: Body) -> Iterator[None]:
    """The library's own calls of its methods inside one of them are ignored."""
    judged.depth += 1
    try:
        yield
    finally:
        judged.depth -= 1


# --- http.client ------------------------------------------------------------------------------


def _patch_http_client(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module, "HTTPConnection.putrequest", _putrequest, recorder)
    _wrap(module, "HTTPConnection.putheader", _putheader, recorder)
    _wrap(module, "HTTPConnection.endheaders", _endheaders, recorder)
    _wrap(module, "HTTPConnection.getresponse", _getresponse, recorder)
    for name in ("read", "read1", "readline"):
        _wrap(module, f"HTTPResponse.{name}", _read_http_client, recorder)
    _wrap(module, "HTTPResponse.readinto", _readinto_http_client, recorder)


def _putrequest(original: Any, recorder: Recorder) -> Any:
    def putrequest(connection: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        if not getattr(_urllib3, "tries", 0):  # otherwise urllib3 reports it
            secure = hasattr(connection, "_context") or connection.default_port == 443  # noqa: PLR2004
            host = getattr(connection, "_tunnel_host", None) or connection.host
            port = getattr(connection, "_tunnel_port", None) or connection.port
            base = f"{'https' if secure else 'http'}://{_host(host)}:{port}"
            request = recorder.begin(method, url if "://" in url else base + url)
            setattr(connection, _MARK, request)
        return original(connection, method, url, *args, **kwargs)

    return putrequest


def _putheader(original: Any, recorder: Recorder) -> Any:  # noqa: ARG001  # as all the others
    def putheader(connection: Any, header: Any, *values: Any) -> Any:
        request: RecordedRequest | None = getattr(connection, _MARK, None)
        if request is not None:
            request.note(header)
        return original(connection, header, *values)

    return putheader


def _endheaders(original: Any, recorder: Recorder) -> Any:
    def endheaders(connection: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(connection, *args, **kwargs)
        except BaseException as error:
            request = _taken(connection)
            recorder.fail(request.number if request else 0, error)
            raise

    return endheaders


def _getresponse(original: Any, recorder: Recorder) -> Any:
    def getresponse(connection: Any, *args: Any, **kwargs: Any) -> Any:
        request = _taken(connection)
        if request is None:
            return original(connection, *args, **kwargs)
        with recorder.failing(request.number):
            response = original(connection, *args, **kwargs)
        setattr(response, _MARK, recorder.answer(request, response.status, response.headers))
        return response

    return getresponse


def _taken(connection: Any) -> RecordedRequest | None:
    request: RecordedRequest | None = getattr(connection, _MARK, None)
    setattr(connection, _MARK, None)
    return request


def _read_http_client(original: Any, recorder: Recorder) -> Any:
    def read(response: Any, *args: Any, **kwargs: Any) -> Any:
        judged: Body | None = getattr(response, _MARK, None)
        if judged is None or judged.ended or judged.depth:
            return original(response, *args, **kwargs)
        with _outermost(judged), recorder.failing(judged.number):
            data = original(response, *args, **kwargs)
        _take_http_client(response, judged, data)
        return data

    return read


def _readinto_http_client(original: Any, recorder: Recorder) -> Any:
    def readinto(response: Any, buffer: Any) -> Any:
        judged: Body | None = getattr(response, _MARK, None)
        if judged is None or judged.ended or judged.depth:
            return original(response, buffer)
        with _outermost(judged), recorder.failing(judged.number):
            count = original(response, buffer)
        _take_http_client(response, judged, bytes(memoryview(buffer).cast("B")[:count]))
        return count

    return readinto


def _take_http_client(response: Any, judged: Body, data: bytes) -> None:
    judged.take_coded(data)
    if response.isclosed() or response.length == 0:  # `readline` does not close it
        judged.end(missing=bool(response.length))


# --- httpx and httpcore -----------------------------------------------------------------------


def _patch_httpcore(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module, "ConnectionPool.handle_request", _handle_request, recorder)
    _wrap(module, "AsyncConnectionPool.handle_async_request", _handle_async_request, recorder)
    _wrap(module, "ConnectionPool.close", _close_pool, recorder, required=False)
    _wrap(module, "AsyncConnectionPool.aclose", _close_pool, recorder, required=False)


def _close_pool(original: Any, recorder: Recorder) -> Any:  # noqa: ARG001  # as all the others
    def close(pool: Any) -> Any:
        pool.closed = True
        return original(pool)

    return close


def _handle_request(original: Any, recorder: Recorder) -> Any:
    def handle_request(pool: Any, request: Any) -> Any:
        told = _begin_httpcore(request, recorder)
        with recorder.failing(told.number, pool):
            response = original(pool, request)
        judged = _answered_httpcore(told, response, recorder)
        response.stream = _Stream(response.stream, told.number, judged, pool, recorder)
        return response

    return handle_request


def _handle_async_request(original: Any, recorder: Recorder) -> Any:
    async def handle_async_request(pool: Any, request: Any) -> Any:
        told = _begin_httpcore(request, recorder)
        with recorder.failing(told.number, pool):
            response = await original(pool, request)
        judged = _answered_httpcore(told, response, recorder)
        response.stream = _AsyncStream(response.stream, told.number, judged, pool, recorder)
        return response

    return handle_async_request


def _begin_httpcore(request: Any, recorder: Recorder) -> RecordedRequest:
    url = request.url
    scheme = url.scheme.decode("ascii", "replace")
    port = url.port or (443 if scheme == "https" else 80)
    target = url.target.decode("ascii", "replace")
    host = _host(url.host.decode("ascii", "replace"))
    # httpx passes a body of bytes on as a stream that it can repeat.
    body = getattr(request.stream, "_stream", None)
    return recorder.begin(
        request.method.decode("ascii", "replace"),
        f"{scheme}://{host}:{port}{target}",
        body if isinstance(body, bytes) else None,
        [name for name, _ in request.headers or ()],
    )


def _answered_httpcore(request: RecordedRequest, response: Any, recorder: Recorder) -> Body | None:
    pairs = response.headers or ()
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
    judged = recorder.answer(request, response.status, headers)
    response.extensions = {**response.extensions, _MARK: judged}  # httpx passes them on
    return judged


class _Stream:
    def __init__(
        self, inner: Any, number: int, judged: Body | None, pool: Any, recorder: Recorder
    ) -> None:
        self._inner = inner
        self._number = number
        self._judged = judged
        self._pool = pool
        self._recorder = recorder

    def __iter__(self) -> Iterator[bytes]:
        with self._recorder.failing(self._number, self._pool):
            for part in self._inner:
                if self._judged is not None:
                    self._judged.take_coded(part)
                yield part
        if self._judged is not None:
            self._judged.end_coded()

    def close(self) -> None:
        if hasattr(self._inner, "close"):
            self._inner.close()


class _AsyncStream:
    def __init__(
        self, inner: Any, number: int, judged: Body | None, pool: Any, recorder: Recorder
    ) -> None:
        self._inner = inner
        self._number = number
        self._judged = judged
        self._pool = pool
        self._recorder = recorder

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._recorder.failing(self._number, self._pool):
            async for part in self._inner:
                if self._judged is not None:
                    self._judged.take_coded(part)
                yield part
        if self._judged is not None:
            self._judged.end_coded()

    async def aclose(self) -> None:
        if hasattr(self._inner, "aclose"):
            await self._inner.aclose()


def _patch_httpx(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module, "Response.iter_bytes", _iter_bytes, recorder)
    _wrap(module, "Response.aiter_bytes", _aiter_bytes, recorder)


def _iter_bytes(original: Any, recorder: Recorder) -> Any:
    def iter_bytes(response: Any, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        judged: Body | None = response.extensions.get(_MARK)
        if judged is None or judged.ended:
            yield from original(response, *args, **kwargs)
            return
        judged.decoded = True
        with recorder.failing(judged.number):
            for part in original(response, *args, **kwargs):
                judged.take(part)
                yield part
        judged.end()

    return iter_bytes


def _aiter_bytes(original: Any, recorder: Recorder) -> Any:
    async def aiter_bytes(response: Any, *args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
        judged: Body | None = response.extensions.get(_MARK)
        if judged is None or judged.ended:
            async for part in original(response, *args, **kwargs):
                yield part
            return
        judged.decoded = True
        with recorder.failing(judged.number):
            async for part in original(response, *args, **kwargs):
                judged.take(part)
                yield part
        judged.end()

    return aiter_bytes


# --- aiohttp ----------------------------------------------------------------------------------

# By the id of a body's stream, which has no room for an attribute: the stream, and its body.
_streams: dict[int, tuple[Any, Body]] = {}


def _patch_aiohttp(module: ModuleType, recorder: Recorder) -> None:
    _wrap(module, "ClientSession._request", _aiohttp_request, recorder)


def _patch_aiohttp_streams(module: ModuleType, recorder: Recorder) -> None:
    for name in ("read", "readany", "readexactly", "readline", "readchunk"):
        _wrap(module, f"StreamReader.{name}", _read_aiohttp, recorder)
    _wrap(module, "StreamReader.readuntil", _read_aiohttp, recorder, required=False)  # since 3.7
    _wrap(module, "StreamReader.read_nowait", _read_nowait_aiohttp, recorder)
    _wrap(module, "StreamReader.on_eof", lambda original, _: original, recorder)
    _wrap(module, "StreamReader.at_eof", lambda original, _: original, recorder)


def _aiohttp_request(original: Any, recorder: Recorder) -> Any:
    async def request(session: Any, method: str, url: Any, **kwargs: Any) -> Any:
        base = getattr(session, "_base_url", None)
        full = str(url) if base is None or "://" in str(url) else str(base.join(type(base)(url)))
        body = kwargs.get("data") if kwargs.get("data") is not None else kwargs.get("json")
        query = kwargs.get("params")
        told = recorder.begin(
            method,
            full,
            (body, query) if body or query else None,
            [*(getattr(session, "headers", None) or ()), *dict(kwargs.get("headers") or ())],
        )
        with recorder.failing(told.number, session):
            response = await original(session, method, url, **kwargs)
        judged = recorder.answer(told, response.status, response.headers)
        if judged is not None:
            judged.client = session
            _watch_stream(response.content, judged)
        return response

    return request


def _watch_stream(stream: Any, judged: Body) -> None:
    judged.decoded = True
    if stream.at_eof():
        judged.end()
        return
    _streams[id(stream)] = (stream, judged)
    # It may end only after everything was read.
    stream.on_eof(lambda: _end_stream(stream))


def _end_stream(stream: Any) -> None:
    _, judged = _streams.get(id(stream), (None, None))
    # Inside a call that reads, the last part has not been shown yet.
    if judged is not None and not judged.depth and stream.at_eof():
        del _streams[id(stream)]
        judged.end()


def _read_aiohttp(original: Any, recorder: Recorder) -> Any:
    async def read(stream: Any, *args: Any, **kwargs: Any) -> Any:
        _, judged = _streams.get(id(stream), (None, None))
        if judged is None or judged.depth:
            return await original(stream, *args, **kwargs)
        with _outermost(judged), recorder.failing(judged.number, judged.client):
            data = await original(stream, *args, **kwargs)
        judged.take(data[0] if isinstance(data, tuple) else data)
        _end_stream(stream)
        return data

    return read


def _read_nowait_aiohttp(original: Any, recorder: Recorder) -> Any:
    def read_nowait(stream: Any, *args: Any, **kwargs: Any) -> Any:
        _, judged = _streams.get(id(stream), (None, None))
        if judged is None or judged.depth:
            return original(stream, *args, **kwargs)
        with _outermost(judged), recorder.failing(judged.number, judged.client):
            data = original(stream, *args, **kwargs)
        judged.take(data)
        _end_stream(stream)
        return data

    return read_nowait


# --- GitPython --------------------------------------------------------------------------------


def _patch_gitpython(module: ModuleType, recorder: Recorder) -> None:
    original = getattr(getattr(getattr(module, "Repo", None), "clone_from", None), "__func__", None)
    if original is None:
        recorder.blind("git", "git.repo.base.Repo.clone_from")
        return
    module.Repo.clone_from = classmethod(functools.wraps(original)(_clone_from(original, recorder)))


def _clone_from(original: Any, recorder: Recorder) -> Any:
    def clone_from(cls: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        full = _clone_url(str(url))
        if not urlsplit(full).hostname:
            return original(cls, url, *args, **kwargs)
        told = recorder.begin(_CLONE, full)
        with recorder.failing(told.number):
            repository = original(cls, url, *args, **kwargs)
        recorder.answer(told, 200, {})
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
    "httpx": _patch_httpx,
    "aiohttp.client": _patch_aiohttp,
    "aiohttp.streams": _patch_aiohttp_streams,
    "git.repo.base": _patch_gitpython,
}
