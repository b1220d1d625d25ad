"""A component for each HTTP client, each way to handle a body, and each answer.

``cells.json`` is a list of ``[client, way, answer]``. PORTS: of HTTP/1.1 and of HTTP/2.

Ways: ``parsed`` takes the answer for JSON; ``streamed`` writes it to disk as it comes; each of them
also ``swallowed``: whatever is raised is ignored, and what there is so far is the state.
"""

import asyncio
import gzip
import http.client
import io
import json
import os
import shutil
import urllib.request
import zlib
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import httpx
import requests
import urllib3

from bundler.component import DefsStateConfig, StateBackedComponent

TIMEOUT = float(os.environ.get("CLIENT_TIMEOUT", "2.5"))
PORT_1, PORT_2 = os.environ.get("PORTS", "0 0").split()
CELLS = Path(__file__).with_name("cells.json")
FALLBACK = '{"items": ["what is known without the system"]}'


class Fetches(StateBackedComponent):
    def __init__(self, client, way, answer):
        self.client = client
        self.way = way
        self.answer = answer

    @property
    def defs_state_config(self):
        return DefsStateConfig(f"Fetches[{self.client}/{self.way}/{self.answer}]")

    def build_defs_from_state(self, context, state_path):
        return None

    def write_state_to_path(self, state_path: Path):
        get, stream = CLIENTS[self.client]
        port = PORT_2 if "http2" in self.client else PORT_1
        url = f"http://127.0.0.1:{port}/{self.answer}/v1/items"
        with swallowing(self.way, state_path):
            if "parsed" in self.way:
                state_path.write_text(json.dumps(get(url)))
            else:
                with open(state_path, "wb") as file:
                    stream(url, file)


class FetchesAsync(Fetches):
    async def write_state_to_path(self, state_path: Path):
        get, stream = CLIENTS[self.client]
        port = PORT_2 if "http2" in self.client else PORT_1
        url = f"http://127.0.0.1:{port}/{self.answer}/v1/items"
        with swallowing(self.way, state_path):
            if "parsed" in self.way:
                state_path.write_text(json.dumps(await get(url)))
            else:
                with open(state_path, "wb") as file:
                    await stream(url, file)


@contextmanager
def swallowing(way, state_path):
    try:
        yield
    except Exception:
        if "swallowed" not in way:
            raise
    if "swallowed" in way and not (state_path.exists() and state_path.stat().st_size):
        state_path.write_text(FALLBACK)


def decoded(data, coding):
    if coding == "gzip":
        return gzip.decompress(data)
    return zlib.decompress(data) if coding == "deflate" else data


# --- requests -----------------------------------------------------------------------------------


def get_requests(url):
    answer = requests.get(url, timeout=TIMEOUT)
    answer.raise_for_status()
    return answer.json()


def stream_requests(url, file):
    with requests.get(url, timeout=TIMEOUT, stream=True) as answer:
        answer.raise_for_status()
        for part in answer.iter_content(8192):
            file.write(part)


def stream_requests_raw(url, file):
    with requests.get(url, timeout=TIMEOUT, stream=True) as answer:
        answer.raise_for_status()
        shutil.copyfileobj(answer.raw, file)


def stream_requests_lines(url, file):
    with requests.get(url, timeout=TIMEOUT, stream=True) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines(chunk_size=700):
            file.write(line)


async def get_requests_in_thread(url):
    return await asyncio.to_thread(get_requests, url)


async def stream_requests_in_thread(url, file):
    await asyncio.to_thread(stream_requests, url, file)


# --- urllib3 ------------------------------------------------------------------------------------


def get_urllib3(url):
    answer = urllib3.PoolManager().request("GET", url, timeout=TIMEOUT, retries=4)
    if answer.status >= 400:
        raise RuntimeError(f"status {answer.status}")
    return json.loads(answer.data)


def stream_urllib3(url, file):
    answer = urllib3.PoolManager().request(
        "GET", url, timeout=TIMEOUT, retries=4, preload_content=False
    )
    if answer.status >= 400:
        raise RuntimeError(f"status {answer.status}")
    while part := answer.read(1000, decode_content=True):
        file.write(part)


def stream_urllib3_stream(url, file):
    answer = urllib3.PoolManager().request(
        "GET", url, timeout=TIMEOUT, retries=4, preload_content=False
    )
    if answer.status >= 400:
        raise RuntimeError(f"status {answer.status}")
    for part in answer.stream(5000):
        file.write(part)


def stream_urllib3_reader(url, file):
    answer = urllib3.PoolManager().request(
        "GET", url, timeout=TIMEOUT, retries=4, preload_content=False
    )
    if answer.status >= 400:
        raise RuntimeError(f"status {answer.status}")
    answer.auto_close = False
    shutil.copyfileobj(io.BufferedReader(answer), file)


# --- urllib and http.client ---------------------------------------------------------------------


def get_urllib(url):
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        return json.loads(decoded(answer.read(), answer.headers.get("content-encoding")))


def stream_urllib(url, file):
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        shutil.copyfileobj(answer, file)


def _ask_http_client(url):
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT)
    connection.request("GET", f"/{path}")
    answer = connection.getresponse()
    if answer.status >= 400:
        raise ValueError("not good")
    if answer.status in (301, 302) and answer.headers["location"] != f"/{path}":
        target = answer.headers["location"] or f"/{path}"
        if "loop" not in target and "nowhere" not in target:
            return _ask_http_client(f"http://{host}{target}")
    return answer


def get_http_client(url):
    answer = _ask_http_client(url)
    return json.loads(decoded(answer.read(), answer.headers.get("content-encoding")))


def stream_http_client(url, file):
    answer = _ask_http_client(url)
    while part := answer.read(16):
        file.write(part)


def stream_http_client_into(url, file):
    answer = _ask_http_client(url)
    buffer = bytearray(3000)
    while count := answer.readinto(buffer):
        file.write(buffer[:count])


def stream_http_client_lines(url, file):
    for line in _ask_http_client(url):
        file.write(line)


def stream_urlretrieve(url, file):
    urllib.request.urlretrieve(url, file.name)


# --- httpx --------------------------------------------------------------------------------------


def httpx_of(kind):
    def ask(http2=False):
        return kind(timeout=TIMEOUT, follow_redirects=True, http1=not http2, http2=http2)

    return ask


_sync, _async = httpx_of(httpx.Client), httpx_of(httpx.AsyncClient)


def get_httpx(url, http2=False):
    with _sync(http2) as client:
        answer = client.get(url)
        answer.raise_for_status()
        return answer.json()


def stream_httpx(url, file, http2=False):
    with _sync(http2) as client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        for part in answer.iter_bytes():
            file.write(part)


def stream_httpx_raw(url, file):
    with _sync() as client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        answer.iter_bytes()  # changes nothing, since it is never read
        for part in answer.iter_raw():
            file.write(part)


def stream_httpx_lines(url, file):
    with _sync() as client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            file.write(line.encode())


async def stream_httpx_raw_async(url, file):
    async with _async() as client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        answer.aiter_bytes()  # changes nothing, since it is never read
        async for part in answer.aiter_raw():
            file.write(part)


async def get_httpx_async(url, http2=False):
    async with _async(http2) as client:
        answer = await client.get(url)
        answer.raise_for_status()
        return answer.json()


async def stream_httpx_async(url, file, http2=False):
    async with _async(http2) as client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        async for part in answer.aiter_bytes():
            file.write(part)


def get_httpx_2(url):
    return get_httpx(url, http2=True)


def stream_httpx_2(url, file):
    stream_httpx(url, file, http2=True)


async def get_httpx_async_2(url):
    return await get_httpx_async(url, http2=True)


async def stream_httpx_async_2(url, file):
    await stream_httpx_async(url, file, http2=True)


# --- aiohttp ------------------------------------------------------------------------------------


def _session():
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
    return aiohttp.ClientSession(timeout=timeout, raise_for_status=True)


async def get_aiohttp(url):
    async with _session() as session, session.get(url) as answer:
        return await answer.json(content_type=None)


async def stream_aiohttp(url, file):
    async with _session() as session, session.get(url) as answer:
        async for part in answer.content.iter_chunked(1024):
            file.write(part)


async def stream_aiohttp_any(url, file):
    async with _session() as session, session.get(url) as answer:
        async for part in answer.content.iter_any():
            file.write(part)


async def stream_aiohttp_read(url, file):
    async with _session() as session, session.get(url) as answer:
        while part := await answer.content.read(777):
            file.write(part)


async def stream_aiohttp_chunks(url, file):
    async with _session() as session, session.get(url) as answer:
        async for part, _ in answer.content.iter_chunks():
            file.write(part)


async def stream_aiohttp_whole(url, file):
    async with _session() as session, session.get(url) as answer:
        file.write(await answer.read())


CLIENTS = {
    "requests": (get_requests, stream_requests),
    "requests-raw": (get_requests, stream_requests_raw),
    "requests-async": (get_requests_in_thread, stream_requests_in_thread),
    "urllib3": (get_urllib3, stream_urllib3),
    "urllib": (get_urllib, stream_urllib),
    "http.client": (get_http_client, stream_http_client),
    "httpx": (get_httpx, stream_httpx),
    "httpx-async": (get_httpx_async, stream_httpx_async),
    "httpx-http2": (get_httpx_2, stream_httpx_2),
    "httpx-http2-async": (get_httpx_async_2, stream_httpx_async_2),
    "aiohttp": (get_aiohttp, stream_aiohttp),
    "requests-lines": (get_requests, stream_requests_lines),
    "urllib3-stream": (get_urllib3, stream_urllib3_stream),
    "urllib3-reader": (get_urllib3, stream_urllib3_reader),
    "urlretrieve": (get_urllib, stream_urlretrieve),
    "http.client-into": (get_http_client, stream_http_client_into),
    "http.client-lines": (get_http_client, stream_http_client_lines),
    "httpx-raw": (get_httpx, stream_httpx_raw),
    "httpx-lines": (get_httpx, stream_httpx_lines),
    "httpx-raw-async": (get_httpx_async, stream_httpx_raw_async),
    "aiohttp-any": (get_aiohttp, stream_aiohttp_any),
    "aiohttp-read": (get_aiohttp, stream_aiohttp_read),
    "aiohttp-chunks": (get_aiohttp, stream_aiohttp_chunks),
    "aiohttp-whole": (get_aiohttp, stream_aiohttp_whole),
}


def all_components():
    return [
        (FetchesAsync if "async" in client or "aiohttp" in client else Fetches)(client, way, answer)
        for client, way, answer in json.loads(CELLS.read_text())
    ]
