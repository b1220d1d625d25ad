"""A failed request is forgiven if it succeeds later, and only if it is the same one."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from bundler.errors import Several
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from tests.support.environments import ROOT, python_of
from tests.support.recording import RecordingListener

CLIENTS = (
    *("urllib", "http.client", "requests", "urllib3", "httpx", "httpcore", "httpx-async"),
    *("aiohttp", "aiohttp-form"),
)
OTHERS = ("body", "operation", "tenant", "stream")
pytestmark = pytest.mark.slow


def test_another_request_to_the_same_url_hides_no_failure(
    tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()

    def answer(request: Request) -> Response:
        asked[request.path] += 1
        return Response(b'{"a": [1]}', 500 if asked[request.path] == 1 else 200, mimetype="text/x")

    httpserver.expect_request(re.compile("/.*")).respond_with_handler(answer)
    shutil.copytree(ROOT / "tests/projects/refresh_repeated", tmp_path / "project")
    monkeypatch.setenv("SERVER", httpserver.url_for("").rstrip("/"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    project = open_project(tmp_path / "project", python=python_of("clients"))
    options = RefreshOptions(over_all=KeyOptions(attempts=1))
    with pytest.raises(Several) as several:
        refresh([project], options, RecordingListener())
    expected = {f"Repeats[{client}/{way}]" for client in CLIENTS for way in OTHERS}
    failed = {failure.key for failure in several.value.failures}
    assert failed == expected - {
        f"Repeats[{client}/stream]" for client in ("httpcore", "httpx-async", "aiohttp-form")
    }
    assert {failure.exit_code for failure in several.value.failures} == {69}
