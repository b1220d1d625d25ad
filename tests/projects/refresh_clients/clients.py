"""A component for each HTTP client and each fault: three pages of items, as vendors give them.

FAULTS: a JSON object, name of a fault to the base URL where it happens. A name that begins with
``swallow-`` is for components that do what vendors' libraries do: they ignore a page that fails,
and write the rest. ``raw-``: they take any answer for the state, as the documentation's example.
"""

import asyncio
import http.client
import json
import os
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx
import requests
import urllib3

from bundler.component import DefsStateConfig, StateBackedComponent

TIMEOUT = float(os.environ.get("CLIENT_TIMEOUT", "1.5"))
PAGES = 3


class Fetches(StateBackedComponent):
    def __init__(self, client, get, fault, base):
        self._get = get
        self._client = client
        self._fault = fault
        self._base = base

    @property
    def defs_state_config(self):
        return DefsStateConfig(f"Fetches[{self._client}/{self._fault}]")

    def build_defs_from_state(self, context, state_path):
        return json.loads(state_path.read_text())

    def _url(self, page):
        return f"{self._base}/v1/items?page={page}&secret=in-the-query"

    def write_state_to_path(self, state_path: Path):
        items = []
        for page in range(1, PAGES + 1):
            try:
                items += self._get(self._url(page), _headers())["items"]
            except Exception:
                if not self._fault.startswith("swallow-"):
                    raise
        _write(state_path, items)


class FetchesAsync(Fetches):
    async def write_state_to_path(self, state_path: Path):
        items = []
        for page in range(1, PAGES + 1):
            try:
                items += (await self._get(self._url(page), _headers()))["items"]
            except Exception:
                if not self._fault.startswith("swallow-"):
                    raise
        _write(state_path, items)


def _headers():
    return {"Authorization": f"Bearer {os.environ['CLIENT_TOKEN']}"}


def _write(path, items):
    path.write_text(json.dumps([item["name"] for item in items]))


def _requests(url, headers):
    answer = requests.get(url, headers=headers, timeout=TIMEOUT)
    if "/raw-" in url:
        return {"items": [{"name": answer.text}]}
    answer.raise_for_status()
    return answer.json()


def _urllib3(url, headers):
    answer = urllib3.PoolManager().request(
        "GET", url, headers=headers, timeout=TIMEOUT, retries=False
    )
    if answer.status >= 400:
        raise RuntimeError(f"status {answer.status}")
    return json.loads(answer.data)


def _urllib(url, headers):
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=TIMEOUT
    ) as answer:
        return json.load(answer)


def _http_client(url, headers):
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=TIMEOUT)
    connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
    answer = connection.getresponse()
    if answer.status >= 400:
        raise ValueError("not good")
    return json.loads(answer.read())


def _httpx(url, headers):
    answer = httpx.get(url, headers=headers, timeout=TIMEOUT)
    answer.raise_for_status()
    return answer.json()


async def _httpx_async(url, headers):
    async with httpx.AsyncClient(timeout=TIMEOUT) as client:
        answer = await client.get(url, headers=headers)
        answer.raise_for_status()
        return answer.json()


async def _aiohttp(url, headers):
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT),
        headers=headers,
        trust_env=True,
    ) as session:
        async with session.get(url, raise_for_status=True) as answer:
            return await answer.json(content_type=None)


async def _requests_in_async(url, headers):
    return await asyncio.to_thread(_requests, url, headers)


def _vendor(url, headers):
    """As one vendor's library does: any fault ends in an error without a reason."""
    try:
        answer = requests.get(url, headers=headers, timeout=TIMEOUT)
        answer.raise_for_status()
        result = answer.json()
    except requests.RequestException:
        pass
    return result


CLIENTS = {
    "requests": (Fetches, _requests),
    "urllib3": (Fetches, _urllib3),
    "urllib": (Fetches, _urllib),
    "http.client": (Fetches, _http_client),
    "httpx": (Fetches, _httpx),
    "httpx-async": (FetchesAsync, _httpx_async),
    "aiohttp": (FetchesAsync, _aiohttp),
    "requests-async": (FetchesAsync, _requests_in_async),
    "vendor": (Fetches, _vendor),
}


def all_components():
    return [
        kind(client, get, fault, base)
        for fault, base in json.loads(os.environ["FAULTS"]).items()
        for client, (kind, get) in CLIENTS.items()
        if client in os.environ.get("CLIENTS", client).split()
    ]
