"""`bundler.worker.patches`: a client library that has changed is not watched in silence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from pytest_httpserver import HTTPServer

from bundler.errors import BadData, ToolFailed
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from bundler.worker import wrapping
from bundler.worker.recorder import Recorder
from tests.support.bodies import served
from tests.support.environments import ROOT, python_of

_COMPONENT = """\
import {library}
from bundler.component import DefsStateConfig, StateBackedComponent


class Fetches(StateBackedComponent):
    defs_state_config = DefsStateConfig("Fetches")

    def write_state_to_path(self, state_path):
        exec({late!r}, {{}})
        state_path.write_text("[1]")

    def build_defs_from_state(self, context, state_path):
        return None
"""
_PYPROJECT = """\
[[tool.state-bundler.source]]
component = "fetching:Fetches"
path = "state"
"""
Refresh = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refresh:
    """Refreshes a component that imports a library, at the top of its module or as it fetches."""

    def run(library: str, late: str = "pass") -> None:
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
        (tmp_path / "pyproject.toml").write_text(_PYPROJECT)
        (tmp_path / "fetching.py").write_text(_COMPONENT.format(library=library, late=late))
        project = open_project(tmp_path, python=python_of("clients"))
        refresh([project], RefreshOptions(), Listener())

    return run


def _install(root: Path, name: str, version: str, files: dict[str, str]) -> None:
    """A library of that name and version, before the one that is installed."""
    info = root / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text(name)
    for file, text in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("late", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_missing_hook_fails_the_key_and_names_library_and_version(
    late: bool, tmp_path: Path, run: Refresh
) -> None:
    text = "class ConnectionPool:\n    def send(self): ...\nclass AsyncConnectionPool: ...\n"
    _install(tmp_path, "httpcore", "99.1", {"httpcore.py": text})
    with pytest.raises(
        ToolFailed, match=r"httpcore 99\.1: it has no httpcore\.\w+\.handle"
    ) as reported:
        run("os" if late else "httpcore", "import httpcore" if late else "pass")
    assert "newer state-bundler" in reported.value.hint


def test_a_missing_class_is_a_missing_hook(tmp_path: Path, run: Refresh) -> None:
    files = {"urllib3/__init__.py": "", "urllib3/response.py": "class Response: ...\n"}
    _install(tmp_path, "urllib3", "9.0", files)
    with pytest.raises(
        ToolFailed, match=r"urllib3 9\.0: it has no urllib3\.response\.HTTPResponse"
    ):
        run("urllib3.response")


@pytest.mark.slow
def test_every_hook_is_there_in_the_libraries_of_today(run: Refresh) -> None:
    run("aiohttp, http.client, httpx, json, logging, requests, simplejson, urllib.request, urllib3")


@pytest.mark.slow
def test_what_requests_parses_with_simplejson_is_seen(run: Refresh, httpserver: HTTPServer) -> None:
    # Too large to be parsed by the recorder itself.
    answer = {"data": {"rows": ["x" * 100_000]}, "errors": [{"message": "showing a part"}]}
    httpserver.expect_request("/").respond_with_json(answer)
    parse = f"import requests; requests.get({httpserver.url_for('/')!r}).json()"
    with pytest.raises(BadData, match="answered with GraphQL errors"):
        run("simplejson", parse)


def test_a_log_record_names_the_place_of_the_warning(
    run: Refresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    (tmp_path / "warning_here.py").write_text(
        "import logging, os\n"
        "logging.basicConfig(filename=os.environ['LOG'], format='%(filename)s:%(lineno)d')\n"
        "logging.getLogger('x').warning('of %s', 1)\n"
        "class Own(logging.Logger):\n"
        "    def _log(self, level, msg, args, exc_info=None, extra=None):\n"
        "        logging.root.handlers[0].stream.write(msg)\n"
        "Own('y').warning('in its own way')\n"
    )
    run("os", "import warning_here")
    assert (tmp_path / "log").read_text() == "warning_here.py:3\nin its own way"


# Each asks with headers for what it gets, or reads only the beginning of a body that is cut.
_ASKING = """import asyncio, http.client, os, urllib.request
import aiohttp, httpx, requests, urllib3
BASE = "http://127.0.0.1:" + os.environ["PORTS"].split()[0]
ETAG, PART = {"If-None-Match": "x"}, {"Range": "bytes=0-99"}


def ask(name, headers):
    url = f"{BASE}/{name}/" + name
    requests.get(f"{url}/requests", headers=headers)
    urllib3.PoolManager().request("GET", f"{url}/urllib3", headers=headers)
    urllib3.PoolManager(headers=headers).request("GET", f"{url}/urllib3-pool")
    httpx.get(f"{url}/httpx", headers=headers)
    connection = http.client.HTTPConnection(BASE.removeprefix("http://"))
    connection.request("GET", f"/{name}/http.client", headers=headers)
    connection.getresponse().read()
    try:
        urllib.request.urlopen(urllib.request.Request(f"{url}/urllib", headers=headers)).read()
    except urllib.error.HTTPError as error:
        assert error.code == 304

    async def ask_async():
        async with httpx.AsyncClient(headers=headers) as client:
            await client.get(f"{url}/httpx-async")
        async with aiohttp.ClientSession() as session:
            await (await session.get(f"{url}/aiohttp", headers=headers)).read()
        async with aiohttp.ClientSession(headers=headers) as session:
            await (await session.get(f"{url}/aiohttp-session")).read()

    asyncio.run(ask_async())


def peek():
    url = f"{BASE}/short-large/peek"
    with requests.get(url, stream=True) as answer:
        next(answer.iter_content(100))
    urllib3.PoolManager().request("GET", url, preload_content=False).read(100)
    with httpx.stream("GET", url) as answer:
        next(answer.iter_bytes(100))
    with urllib.request.urlopen(url) as answer:
        answer.read(100)

    async def peek_async():
        async with httpx.AsyncClient() as client, client.stream("GET", url) as answer:
            async for _ in answer.aiter_bytes(100):
                break
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            async for _ in answer.content.iter_chunked(100):
                break

    asyncio.run(peek_async())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        "peek()",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("ask('304', ETAG)", "ask('206', PART)", "requests.head(BASE + '/204/x')")
        ),
    ],
)
def test_what_was_asked_for_is_not_a_fault(
    what: str, tmp_path: Path, run: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asking.py").write_text(_ASKING)
    with served() as ports:
        monkeypatch.setenv("PORTS", ports)
        run("asking", f"from asking import *; {what}")


def test_a_library_that_replaces_another_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is in `sys.modules` under the name of another, as urllib3.future is."""

    class Client:
        def get(self) -> str:
            return "unseen"

    class Blind:
        missing: tuple[str, ...] = ()

        def blind(self, *hook: str) -> None:
            self.missing = hook

    def seen(_: Recorder, call: wrapping.Call) -> Any:
        return f"not {call()}"

    stand_in = ModuleType("other_client")
    stand_in.Client = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "client", stand_in)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    recorder = Blind()
    patches = [("client", "Client", "get", seen), ("client", "Client", "put", seen)]
    wrapping.install(patches, cast("Recorder", recorder))
    assert Client().get() == "not unseen"
    assert recorder.missing == ("client", "client.Client.put")
