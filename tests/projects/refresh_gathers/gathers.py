"""Components that ask for several things concurrently, of which one fails and the others hang.

CASES: a JSON list of ``[client, way, fault]``. SERVER: the URL below which each case has a folder.
"""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

import aiohttp
import anyio
import httpx
import requests

from bundler.component import DefsStateConfig, StateBackedComponent

HANGING = 3
SHORT_SECONDS = 0.1


class Gathers(StateBackedComponent):
    def __init__(self, client, way, fault):
        self._client = client
        self._way = way
        self._case = f"{client}/{way}/{fault}"
        base = f"{os.environ['SERVER']}/{self._case}"
        self._urls = [*(f"{base}/hang-{number}" for number in range(HANGING)), f"{base}/{fault}"]

    @property
    def defs_state_config(self):
        return DefsStateConfig(f"Gathers[{self._case}]")

    def build_defs_from_state(self, context, state_path):
        return json.loads(state_path.read_text())

    def write_state_to_path(self, state_path):
        if self._client == "requests":
            found = in_threads(self._urls)
        else:
            found = asyncio.run(WAYS[self._way](CLIENTS[self._client], self._urls))
        state_path.write_text(json.dumps(found))


def in_threads(urls):
    """The end of the pool waits for those that hang, which lose their connection."""
    with ThreadPoolExecutor() as pool:
        *others, faulty = [pool.submit(_get_requests, url) for url in urls]
        try:
            return [faulty.result(), *(other.result() for other in others)]
        finally:
            requests.get(f"{urls[0].rpartition('/')[0]}/release", timeout=60)


def _get_requests(url):
    answer = requests.get(url, timeout=60)
    answer.raise_for_status()
    return answer.json()["items"]


# --- asyncio ------------------------------------------------------------------------------------


class Aiohttp:
    @staticmethod
    def session():
        return aiohttp.ClientSession()

    @staticmethod
    async def get(session, url):
        async with session.get(url, raise_for_status=True) as answer:
            return (await answer.json())["items"]


class Httpx:
    @staticmethod
    def session():
        return httpx.AsyncClient(timeout=None)

    @staticmethod
    async def get(session, url):
        answer = await session.get(url)
        answer.raise_for_status()
        return answer.json()["items"]


CLIENTS = {"aiohttp": Aiohttp, "httpx": Httpx}


async def _alone(client, url):
    async with client.session() as session:
        return await client.get(session, url)


async def gather(client, urls):
    """As dagster-sigma does: what still runs is cancelled when the loop ends."""
    return await asyncio.gather(*(_alone(client, url) for url in urls))


async def gather_in_one_session(client, urls):
    """What still runs loses its connection, since the session is closed first."""
    async with client.session() as session:
        return await asyncio.gather(*(client.get(session, url) for url in urls))


async def gather_and_linger(client, urls):
    """What still runs fails by itself before the loop ends."""
    try:
        return await gather_in_one_session(client, urls)
    finally:
        await asyncio.sleep(SHORT_SECONDS)


async def task_group(client, urls):
    async with client.session() as session, anyio.create_task_group() as group:
        for url in urls:
            group.start_soon(client.get, session, url)


async def task_group_that_asks(client, urls):
    """The group's own body is cancelled, too."""
    first, *others = urls
    async with client.session() as session, anyio.create_task_group() as group:
        for url in others:
            group.start_soon(client.get, session, url)
        await client.get(session, first)


async def first_exception(client, urls):
    tasks = [asyncio.ensure_future(_alone(client, url)) for url in urls]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return [task.result() for task in done]


async def vendor(client, urls):
    """Reports nothing of what happened."""
    try:
        return await gather(client, urls)
    except Exception:
        pass
    raise RuntimeError("could not fetch")


async def swallowing(client, urls):
    """Goes on without what failed."""
    try:
        return await gather(client, urls)
    except Exception:
        return [["nothing"]]


async def timed(client, urls):
    """Those that hang are given up by their own limit, after the fault."""
    *others, faulty = urls
    failing = asyncio.ensure_future(_alone(client, faulty))
    await asyncio.gather(*(_limited(client, url, failing) for url in others))
    return failing.result()


async def _limited(client, url, failing):
    asked = asyncio.ensure_future(_alone(client, url))
    await asyncio.wait([failing])
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asked, SHORT_SECONDS)


async def hopeless(client, urls):
    """Passes over the fault, and gives up since the others take too long."""
    *others, faulty = urls
    asked = [asyncio.ensure_future(_alone(client, url)) for url in others]
    with suppress(Exception):
        await _alone(client, faulty)
    return await asyncio.wait_for(asyncio.gather(*asked), SHORT_SECONDS)


WAYS = {
    way.__name__.replace("_", "-"): way
    for way in (
        *(gather, gather_in_one_session, gather_and_linger, task_group, task_group_that_asks),
        *(first_exception, vendor, swallowing, timed, hopeless),
    )
}


def all_components():
    return [Gathers(*case) for case in json.loads(os.environ["CASES"])]
