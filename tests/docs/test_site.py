"""`make site`: built strictly, opened from disk in a browser, searched, in light and dark."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, browser
from tests.support.environments import ROOT, python_of

sys.path.insert(0, str(ROOT / "docs/theme"))
import diagrams

_SECONDS = 60.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [python_of("site"), "-m", "mkdocs", "build", "--quiet", "--strict", "-d", folder]
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = {**os.environ, **proxies, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        build, cwd=ROOT, env=environment, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as shown:
        yield shown


def wait_for(page: Browser, script: str) -> str:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if found := page.value(script):
            return str(found)
        time.sleep(0.1)
    raise AssertionError(f"never true: {script}")


@pytest.mark.parametrize("text", diagrams.texts(), ids=lambda text: text.split("\n")[1].strip())
def test_every_diagram_is_drawn(text: str) -> None:
    assert diagrams.path_of(text).exists(), "run: make diagrams"


def test_the_site_needs_no_network(site: Path, page: Browser) -> None:
    page.show(site / "index.html")
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("file:")] == []


def test_the_search_finds_a_command(site: Path, page: Browser) -> None:
    page.show(site / "index.html")
    wait_for(page, "typeof __index === 'object'")
    page.value("document.querySelector('label[for=__search]').click()")
    page.value("document.querySelector('.md-search__input').focus()")
    page("Input.insertText", text="pex-bundle")
    page("Input.dispatchKeyEvent", type="keyUp", key="e")
    found = "document.querySelector('.md-search-result__link')?.href"
    assert wait_for(page, found).startswith(site.as_uri())


def test_it_is_dark_where_the_system_is(site: Path, page: Browser) -> None:
    shades = []
    for dark in (False, True):
        page.show(site / "index.html", dark=dark)
        colour = page.value("getComputedStyle(document.body).backgroundColor")
        shades.append(int(colour.partition("(")[2].split(",")[0]))
    assert shades[0] > 200
    assert shades[1] < 60
