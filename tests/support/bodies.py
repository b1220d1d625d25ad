"""Refreshes of components that fetch good and bad answers, for every HTTP client and way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from bundler.errors import BundlerError, Several
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.project.projects import open_project
from bundler.refresh.run import refresh
from tests.support.answers import ANSWERS, GOOD
from tests.support.environments import ROOT, python_of
from tests.support.recording import RecordingListener

# Other ways to read a body as it streams: what they parse is what the client itself parses.
_STREAMED = (
    *("requests-raw", "requests-lines", "urllib3-stream", "urllib3-reader", "urlretrieve"),
    *("http.client-into", "http.client-lines", "httpx-raw", "httpx-lines", "httpx-raw-async"),
    *("aiohttp-any", "aiohttp-read", "aiohttp-chunks", "aiohttp-whole"),
)
CLIENTS = (
    *("requests", "urllib3", "urllib", "http.client", "httpx", "httpx-http2"),
    *("requests-async", "httpx-async", "httpx-http2-async", "aiohttp"),
    *_STREAMED,
)
WAYS = ("parsed", "streamed", "parsed-swallowed", "streamed-swallowed")
# These hand compressed bodies out as they came.
_PLAIN = (
    *("urllib", "http.client", "requests-raw", "urlretrieve", "http.client-into"),
    *("http.client-lines", "httpx-raw", "httpx-raw-async"),
)
_SAYS_NOTHING = ("br", "zstd")


@dataclass(frozen=True)
class Cell:
    """One client that fetches one answer in one way."""

    client: str
    way: str
    answer: str

    @property
    def key(self) -> str:
        return f"Fetches[{self.client}/{self.way}/{self.answer}]"

    @property
    def expected(self) -> int:
        return ANSWERS[self.answer].code

    @property
    def exists(self) -> bool:
        """Whether there is such a cell."""
        answer = ANSWERS[self.answer]
        if answer.raw and ("parsed" in self.way):
            return False  # the component itself would fail
        if self.answer in GOOD and "swallowed" in self.way:
            return False
        if self.client in _STREAMED and "parsed" in self.way:
            return False
        if self.client == "requests-lines" and self.answer == "bomb":
            return False  # a line of that length takes it minutes
        if "http2" in self.client and answer.only_1:
            return False
        return not (self.client in _PLAIN and answer.coding in _SAYS_NOTHING)


def all_cells() -> list[Cell]:
    """Every cell that there is."""
    cells = [Cell(client, way, answer) for answer in ANSWERS for way in WAYS for client in CLIENTS]
    return [cell for cell in cells if cell.exists]


@contextmanager
def served() -> Iterator[str]:
    """The ports of a server of answers."""
    script = ROOT / "tests/support/answers.py"
    argv = [python_of("clients"), script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def refresh_cells(cells: Sequence[Cell], root: Path, ports: str) -> dict[Cell, BundlerError | None]:
    """What became of each of them."""
    shutil.copytree(ROOT / "tests/projects/refresh_bodies", root)
    given = [(cell.client, cell.way, cell.answer) for cell in cells]
    (root / "cells.json").write_text(json.dumps(given))
    variables = {
        "PORTS": ports,
        "PYTHONPATH": str(ROOT),
        "CLIENT_TIMEOUT": "2.5",
    }
    options = RefreshOptions(
        over_all=KeyOptions(timeout=20.0, attempts=1), jobs=12, total_timeout=3600
    )
    with patch.dict(os.environ, variables):
        project = open_project(root, python=python_of("clients"))
        try:
            refresh([project], options, RecordingListener())
        except Several as several:
            failures = {failure.key: failure for failure in several.failures}
        except BundlerError as failure:
            failures = {failure.key: failure}
        else:
            failures = {}
    assert set(failures) <= {cell.key for cell in cells}, failures
    return {cell: failures.get(cell.key) for cell in cells}


def thinned(share: int) -> list[Cell]:
    """One in so many cells, of every answer, client and way; the slow ones less often."""
    cells = []
    for number, answer in enumerate(ANSWERS):
        mine = [cell for cell in all_cells() if cell.answer == answer]
        step = 3 * share if "hangs" in answer else share
        cells += mine[number % step :: step] or mine[:1]
    return cells
