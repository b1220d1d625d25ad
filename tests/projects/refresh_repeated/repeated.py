"""Components that send two requests of one method to one URL, of which the first fails.

SERVER: the URL below which each has a path. The key says in what the requests differ.
"""

import asyncio
import http.client
import io
import os
import urllib.request
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import httpcore
import httpx
import requests
import urllib3

from bundler.component import DefsStateConfig, StateBackedComponent

BASE = os.environ["SERVER"]


def with_urllib(url, body, headers):
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    with suppress(OSError):
        urllib.request.urlopen(request).read()


def with_http_client(url, body, headers):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("POST", parts.path, body, headers)
    connection.getresponse().read()


async def with_aiohttp(url, body, headers):
    async with aiohttp.ClientSession() as session:
        await (await session.post(url, data=body, headers=headers)).read()


async def with_httpx_async(url, body, headers):
    async with httpx.AsyncClient() as client:
        await client.post(url, content=body, headers=headers)


CLIENTS = {
    "urllib": with_urllib,
    "http.client": with_http_client,
    "requests": lambda url, body, headers: requests.post(url, data=body, headers=headers),
    "urllib3": lambda url, body, headers: urllib3.request("POST", url, body=body, headers=headers),
    "httpx": lambda url, body, headers: httpx.post(url, content=body, headers=headers),
    "httpcore": lambda url, body, headers: httpcore.request(
        "POST", url, content=body, headers=headers
    ),
    "httpx-async": with_httpx_async,
    "aiohttp": with_aiohttp,
    "aiohttp-form": lambda url, body, headers: with_aiohttp(
        url, aiohttp.FormData({"query": body.decode()}), headers
    ),
}
WITHOUT_STREAMS = ("httpcore", "httpx-async", "aiohttp-form")
WAYS = {
    "nothing": [(b"{}", {}), (b"{}", {})],
    "credentials": [(b"{}", {"Authorization": "old"}), (b"{}", {"Authorization": "new"})],
    "body": [(b'{"query": "a"}', {}), (b'{"query": "b"}', {})],
    "operation": [(b"{}", {"X-Amz-Target": "a"}), (b"{}", {"X-Amz-Target": "b"})],
    "tenant": [(b"{}", {"X-Tenant-Id": "a"}), (b"{}", {"X-Tenant-Id": "b"})],
    "stream": [(io.BytesIO(b"a"), {}), (io.BytesIO(b"b"), {})],
}


class Repeats(StateBackedComponent):
    def __init__(self, client, way):
        self._client = client
        self._way = way

    @property
    def defs_state_config(self):
        return DefsStateConfig(f"Repeats[{self._client}/{self._way}]")

    def build_defs_from_state(self, context, state_path):
        return None

    async def write_state_to_path(self, state_path):
        for body, headers in WAYS[self._way]:
            url = f"{BASE}/{self._client}/{self._way}"
            asking = CLIENTS[self._client](url, body, headers)
            if asyncio.iscoroutine(asking):
                await asking
        state_path.write_text("[1]")


def all_components():
    return [
        Repeats(client, way)
        for client in CLIENTS
        for way in WAYS
        if way != "stream" or client not in WITHOUT_STREAMS
    ]
