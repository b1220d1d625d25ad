"""The patches: what replaces methods of client libraries, so that the recorder hears of every
exchange.

Runs inside the component's process: the standard library only, and whatever the component imports.

Replaced is the one function of each client library that makes an exchange: urllib3's ``urlopen``
(requests, botocore and most vendors use it), ``http.client`` itself, httpcore's pools
(httpx) and aiohttp's session, those that are imported and those that will be; and what bodies are
read with. A clone by GitPython is an exchange too, with the method ``git-clone``: dagster-dbt
fetches projects that way. What parses answers is wrapped likewise (``json`` and simplejson), and
what logs that something was left out (``logging``). dbt has to write the manifest.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from bundler.worker.bodies import Body
    from bundler.worker.recorder import RecordedRequest, Recorder
    from bundler.worker.wrapping import Call, Patch, Replacement

# Attributes: a connection's request, and a response's body; of a request that is being made, the
# method, the URL and the headers so far.
_MARK = "_state_bundler_exchange"
_HEAD = "_state_bundler_head"
_CLONE = "git-clone"
# The other way to write an ssh URL: git@host:group/repository.git
_SCP_LIKE = re.compile(r"(?:[^@/:]+@)?(?P<host>[\w.-]+):(?P<path>(?!//).+)")
# Between a call that is replaced and the original: a log record names the caller.
_OWN_FRAMES = 3
# How deep this thread is inside urllib3, which uses http.client and calls itself to retry.
_urllib3 = threading.local()
# Bodies of aiohttp by the id of the stream, which has no room for an attribute: with the stream.
_streams: dict[int, tuple[Any, Body]] = {}


# --- bodies -----------------------------------------------------------------------------------


def _reads(took: Callable[[Body, Any, Call], None]) -> Replacement:
    """Replaces a method that reads from a body. took: called with what it has returned."""

    def read(recorder: Recorder, call: Call) -> Any:
        judged = _to_judge(call.of)
        if judged is None:
            return call()
        with _outermost(judged, recorder):
            data = call()
        took(judged, data, call)
        return data

    return read


def _to_judge(response: Any) -> Body | None:
    """The body of a response that is being read, unless that is the library's own call."""
    judged: Body | None = getattr(response, _MARK, None) or _streams.get(id(response), (0, None))[1]
    return None if judged is None or judged.ended or judged.depth else judged


@contextmanager
def _outermost(judged: Body, recorder: Recorder) -> Iterator[None]:
    """The library's own calls of its methods inside one of them are ignored."""
    judged.depth += 1
    try:
        with recorder.failing(judged.number, judged.client):
            yield
    finally:
        judged.depth -= 1


# --- json -------------------------------------------------------------------------------------


def _not_json(recorder: Recorder, call: Call) -> None:
    # Vendors' libraries catch it and fail later with a misleading error, or continue.
    call()
    recorder.not_json(getattr(call.of, "doc", ""))


def _decode(recorder: Recorder, call: Call) -> Any:
    # GraphQL always answers 200; clients that do not check mistake a part for the whole.
    value = call()
    recorder.decoded(value, call.argument(0, "s"))
    return value


# --- logging ----------------------------------------------------------------------------------


def _warning(recorder: Recorder, call: Call) -> Any:
    recorder.warned(call.argument(0, "msg"))
    # A project's own class of logger may not take a stacklevel.
    if type(call.of) not in (logging.Logger, logging.RootLogger):
        return call()
    return call(stacklevel=call.argument(None, "stacklevel", 1) + _OWN_FRAMES)


# --- urllib3 ----------------------------------------------------------------------------------


def _urlopen(recorder: Recorder, call: Call) -> Any:
    # The library calls it again for each of its own retries: only the outermost call is reported.
    _urllib3.tries = getattr(_urllib3, "tries", 0) + 1
    if _urllib3.tries > 1:
        return call()
    pool, url, headers = call.of, call.argument(1, "url"), call.argument(3, "headers")
    request = recorder.begin(
        call.argument(0, "method"),
        url if "://" in url else f"{pool.scheme}://{_host(pool.host)}:{pool.port}{url}",
        call.argument(2, "body"),
        (headers or pool.headers).items(),
    )
    try:
        response = call()
    except BaseException as error:
        recorder.fail(request.number, error, _urllib3.tries)
        raise
    else:
        judged = recorder.answer(request, response.status, response.headers, _urllib3.tries)
        setattr(response, _MARK, judged)
        if judged is not None and call.argument(None, "preload_content", True):
            judged.decoded = True  # it has been read already
            judged.take(response.data)
            _end_urllib3(judged, response)
        return response
    finally:
        _urllib3.tries = 0


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _took_urllib3(judged: Body, data: bytes, call: Call) -> None:
    _take_urllib3(judged, data, call)
    amount = call.argument(0, "amt")
    if (not data and amount != 0) or amount is None or amount < 0:
        _end_urllib3(judged, call.of)


def _stream_urllib3(recorder: Recorder, call: Call) -> Iterator[bytes]:
    judged = _to_judge(call.of)
    if judged is None:
        yield from call()
        return
    parts = call()
    while True:
        with _outermost(judged, recorder):
            part = next(parts, None)
        if part is None:
            break
        _take_urllib3(judged, part, call)
        yield part
    _end_urllib3(judged, call.of)


def _take_urllib3(judged: Body, data: bytes, call: Call) -> None:
    decodes = call.argument(1, "decode_content")
    judged.decoded = bool(call.of.decode_content if decodes is None else decodes)
    if judged.decoded:
        judged.take(data)
    else:
        judged.take_coded(data)


def _end_urllib3(judged: Body, response: Any) -> None:
    # Version 1 does not compare what was received with what was promised.
    judged.end(missing=bool(response.length_remaining))


def _decode_urllib3(_: Recorder, call: Call) -> Any:
    # The only function that handles compressed bytes on every way to read them.
    judged: Body | None = getattr(call.of, _MARK, None)
    if judged is not None:
        judged.count_coded(call.argument(0, "data"))
    return call()


# --- http.client ------------------------------------------------------------------------------


def _putrequest(_: Recorder, call: Call) -> Any:
    if not getattr(_urllib3, "tries", 0):  # otherwise urllib3 reports it
        connection, url = call.of, call.argument(1, "url")
        secure = hasattr(connection, "_context") or connection.default_port == 443  # noqa: PLR2004
        host = getattr(connection, "_tunnel_host", None) or connection.host
        port = getattr(connection, "_tunnel_port", None) or connection.port
        base = f"{'https' if secure else 'http'}://{_host(host)}:{port}"
        full = url if "://" in url else base + url
        setattr(connection, _HEAD, (call.argument(0, "method"), full, []))
    return call()


def _putheader(_: Recorder, call: Call) -> Any:
    head = getattr(call.of, _HEAD, None)
    if head is not None:
        head[2].append((call.argument(0, "header"), call.argument(1, "")))
    return call()


def _endheaders(recorder: Recorder, call: Call) -> Any:
    head = getattr(call.of, _HEAD, None)
    if head is None:
        return call()
    setattr(call.of, _HEAD, None)
    method, url, headers = head
    request = recorder.begin(method, url, call.argument(0, "message_body"), headers)
    with recorder.failing(request.number):
        sent = call()
    setattr(call.of, _MARK, request)
    return sent


def _getresponse(recorder: Recorder, call: Call) -> Any:
    request: RecordedRequest | None = getattr(call.of, _MARK, None)
    if request is None:
        return call()
    setattr(call.of, _MARK, None)
    with recorder.failing(request.number):
        response = call()
    setattr(response, _MARK, recorder.answer(request, response.status, response.headers))
    return response


def _took_http_client(judged: Body, data: bytes, call: Call) -> None:
    judged.take_coded(data)
    if call.of.isclosed() or call.of.length == 0:  # `readline` does not close it
        judged.end(missing=bool(call.of.length))


def _took_into(judged: Body, count: int, call: Call) -> None:
    buffer = memoryview(call.argument(0, "b")).cast("B")
    _took_http_client(judged, bytes(buffer[:count]), call)


# --- httpx and httpcore -----------------------------------------------------------------------


def _close_pool(_: Recorder, call: Call) -> Any:
    call.of.closed = True
    return call()


def _handle_request(recorder: Recorder, call: Call) -> Any:
    told = _begin_httpcore(recorder, call)
    with recorder.failing(told.number, call.of):
        response = call()
    return _answered_httpcore(told, response, call.of, recorder)


async def _handle_async_request(recorder: Recorder, call: Call) -> Any:
    told = _begin_httpcore(recorder, call)
    with recorder.failing(told.number, call.of):
        response = await call()
    return _answered_httpcore(told, response, call.of, recorder)


def _begin_httpcore(recorder: Recorder, call: Call) -> RecordedRequest:
    request = call.argument(0, "request")
    url = request.url
    scheme = url.scheme.decode("ascii", "replace")
    port = url.port or (443 if scheme == "https" else 80)
    target = url.target.decode("ascii", "replace")
    host = _host(url.host.decode("ascii", "replace"))
    # A body of bytes is passed on as a stream that can be repeated: httpx's, or its own.
    stream = request.stream
    return recorder.begin(
        request.method.decode("ascii", "replace"),
        f"{scheme}://{host}:{port}{target}",
        getattr(stream, "_stream", getattr(stream, "_content", stream)),
        request.headers or (),
    )


def _answered_httpcore(
    request: RecordedRequest, response: Any, pool: Any, recorder: Recorder
) -> Any:
    pairs = response.headers or ()
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
    judged = recorder.answer(request, response.status, headers)
    response.extensions = {**response.extensions, _MARK: judged}  # httpx passes them on
    take, end = (judged.take_coded, judged.end_coded) if judged else (_ignore, _ignore)
    failing = functools.partial(recorder.failing, request.number, pool)
    response.stream = _Stream(response.stream, failing, take, end)
    return response


def _ignore(*_: object) -> None:
    """Takes a body that is not judged."""


class _Stream:
    """Passes on the bytes of a body, on both ways to read it."""

    def __init__(
        self,
        inner: Any,
        failing: Callable[[], Any],
        take: Callable[[bytes], object],
        end: Callable[[], object],
    ) -> None:
        self._inner = inner
        self._failing = failing
        self._take = take
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        with self._failing():
            for part in self._inner:
                self._take(part)
                yield part
        self._end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._failing():
            async for part in self._inner:
                self._take(part)
                yield part
        self._end()

    def close(self) -> None:
        if hasattr(self._inner, "close"):
            self._inner.close()

    async def aclose(self) -> None:
        if hasattr(self._inner, "aclose"):
            await self._inner.aclose()


def _iter_bytes(recorder: Recorder, call: Call) -> Any:
    parts = call()
    judged: Body | None = call.of.extensions.get(_MARK)
    if judged is None or judged.ended:
        return parts
    stream = _Stream(parts, functools.partial(_decoding, recorder, judged), judged.take, judged.end)
    return aiter(stream) if hasattr(parts, "__aiter__") else iter(stream)


@contextmanager
def _decoding(recorder: Recorder, judged: Body) -> Iterator[None]:
    judged.decoded = True  # not before: what is never read here may be read as it was sent
    with recorder.failing(judged.number):
        yield


# --- aiohttp ----------------------------------------------------------------------------------


async def _aiohttp_request(recorder: Recorder, call: Call) -> Any:
    session, url = call.of, str(call.argument(1, "url"))
    base = getattr(session, "_base_url", None)
    data, query = call.argument(None, "data"), call.argument(None, "params")
    body = data if data is not None else call.argument(None, "json")
    body = getattr(body, "_fields", body)  # of a form, which is made anew for each request
    own = getattr(session, "headers", None) or {}
    told = recorder.begin(
        call.argument(0, "method"),
        url if base is None or "://" in url else str(base.join(type(base)(url))),
        (body, query) if body or query else None,
        {**own, **dict(call.argument(None, "headers") or ())}.items(),
    )
    with recorder.failing(told.number, session):
        response = await call()
    judged = recorder.answer(told, response.status, response.headers)
    if judged is not None:
        judged.client = session
        _watch_stream(response.content, judged)
    return response


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


async def _read_aiohttp(recorder: Recorder, call: Call) -> Any:
    judged = _to_judge(call.of)
    if judged is None:
        return await call()
    with _outermost(judged, recorder):
        data = await call()
    _took_aiohttp(judged, data[0] if isinstance(data, tuple) else data, call)
    return data


def _took_aiohttp(judged: Body, data: bytes, call: Call) -> None:
    judged.take(data)
    _end_stream(call.of)


def _unchanged(_: Recorder, call: Call) -> Any:
    """Replaces what is only used here: a library without it must be noticed."""
    return call()


# --- GitPython --------------------------------------------------------------------------------


def _clone_from(recorder: Recorder, call: Call) -> Any:
    full = _clone_url(str(call.argument(0, "url")))
    if not urlsplit(full).hostname:
        return call()
    told = recorder.begin(_CLONE, full)
    with recorder.failing(told.number):
        repository = call()
    recorder.answer(told, 200, {})
    return repository


def _clone_url(url: str) -> str:
    found = None if "://" in url else _SCP_LIKE.fullmatch(url)
    return f"ssh://{found['host']}/{found['path'].lstrip('/')}" if found else url


# --- dbt --------------------------------------------------------------------------------------


class ManifestNotWrittenError(Exception):
    """dbt succeeded, but left the manifest of an earlier run, or none."""


def _prepare(_: Recorder, call: Call) -> Any:
    manifest = call.argument(0, "project").manifest_path
    before = _written(manifest)
    prepared = call()
    if _written(manifest) in (None, before):
        raise ManifestNotWrittenError(manifest)
    return prepared


def _written(path: Any) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


PATCHES: tuple[Patch, ...] = (
    ("json", "JSONDecodeError", "__init__", _not_json),
    ("json", "JSONDecoder", "decode", _decode),
    # requests prefers it to the standard library's.
    ("simplejson.errors", "JSONDecodeError", "__init__", _not_json),
    ("simplejson.decoder", "JSONDecoder", "decode", _decode),
    ("logging", "Logger", "warning", _warning),
    ("urllib3.connectionpool", "HTTPConnectionPool", "urlopen", _urlopen),
    ("urllib3.response", "HTTPResponse", "read", _reads(_took_urllib3)),
    ("urllib3.response", "HTTPResponse", "read1?", _reads(_took_urllib3)),  # since 2.1
    ("urllib3.response", "HTTPResponse", "stream read_chunked", _stream_urllib3),
    ("urllib3.response", "HTTPResponse", "_decode", _decode_urllib3),
    ("http.client", "HTTPConnection", "putrequest", _putrequest),
    ("http.client", "HTTPConnection", "putheader", _putheader),
    ("http.client", "HTTPConnection", "endheaders", _endheaders),
    ("http.client", "HTTPConnection", "getresponse", _getresponse),
    ("http.client", "HTTPResponse", "read read1 readline", _reads(_took_http_client)),
    ("http.client", "HTTPResponse", "readinto", _reads(_took_into)),
    ("httpcore", "ConnectionPool", "handle_request", _handle_request),
    ("httpcore", "AsyncConnectionPool", "handle_async_request", _handle_async_request),
    ("httpcore", "ConnectionPool", "close?", _close_pool),
    ("httpcore", "AsyncConnectionPool", "aclose?", _close_pool),
    ("httpx", "Response", "iter_bytes aiter_bytes", _iter_bytes),
    ("aiohttp.client", "ClientSession", "_request", _aiohttp_request),
    ("aiohttp.streams", "StreamReader", "read readany readexactly readline", _read_aiohttp),
    ("aiohttp.streams", "StreamReader", "readchunk", _read_aiohttp),
    ("aiohttp.streams", "StreamReader", "readuntil?", _read_aiohttp),  # since 3.7
    ("aiohttp.streams", "StreamReader", "read_nowait", _reads(_took_aiohttp)),
    ("aiohttp.streams", "StreamReader", "on_eof at_eof", _unchanged),
    ("git.repo.base", "Repo", "clone_from", _clone_from),
    ("dagster_dbt.dbt_project", "DagsterDbtProjectPreparer", "prepare?", _prepare),
)
