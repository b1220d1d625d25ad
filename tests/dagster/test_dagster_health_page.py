"""`bundler.dagster_health` in Dagster's own web UI, looked at with a headless browser. About 60 s.

With BUNDLER_TEST_SCREENSHOT the picture in the documentation is written to that path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundler.state.manifest import DirectoryRefresh, KeyRefresh
from bundler.state.statedir import StateDir
from bundler.system.times import now
from tests.support import warm
from tests.support.browser import browser
from tests.support.engine import install
from tests.support.environments import ROOT, python_of
from tests.support.planned import KEY, make
from tests.support.registries import free_port
from tests.support.statedirs import fill

_PLACE = "planned/defs/.local_defs_state"
_OLD = "2026-01-01T00:00:00Z"
_RUN_CHECKS = """
import dagster as dg
from planned.definitions import defs
with dg.DagsterInstance.get() as instance:
    job = defs().resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance, raise_on_error=True)
"""


# What Dagster asks everyone who opens its page for the first time.
_CLOSE = """
[...document.querySelectorAll("button")].find(it => it.innerText === "Skip")?.click();
new Promise(resolve => setTimeout(resolve, 1000))
"""


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """Of an instance whose checks have run on two states: a young one and an old one."""
    root = make(tmp_path)
    (root / "src/planned/defs/health").mkdir()
    (root / "src/planned/defs/health/defs.yaml").write_text(
        "type: bundler.dagster_health.StateHealth\nattributes:\n  max_age: 24h\n"
    )
    states = {KEY: '{"assets": {"orders": {}}}', "Feed[suppliers]": '{"assets": {}}'}
    keys = tuple(KeyRefresh(key, confirmed=now() if key == KEY else _OLD) for key in states)
    with StateDir(root / "src" / _PLACE, _PLACE).staging() as staging:
        written = fill(staging, {key: {"state": text} for key, text in states.items()})
        staging.publish(written, (), DirectoryRefresh(_PLACE, keys))
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "DG_", "PYTHON"))}
    environment = {
        **kept,
        "PATH": f"{python_of('store').parent}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{root / 'src'}",
        "DAGSTER_HOME": str(home),
    }
    python = warm.program(python_of("store"))
    subprocess.run([python, "-c", _RUN_CHECKS], cwd=root, env=environment, check=True)
    return {**environment, "PWD": str(root)}


@contextmanager
def _webserver(environment: Mapping[str, str]) -> Iterator[str]:
    """Dagster's webserver on the code location; its address."""
    port = free_port()
    argv = ["dagster-webserver", "-m", "planned.definitions", "-h", "localhost", "-p", str(port)]
    process = subprocess.Popen(
        argv, cwd=environment["PWD"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 300
        while not _answers(url := f"http://localhost:{port}"):
            assert process.poll() is None, "the webserver has ended"
            assert time.monotonic() < end, "the webserver did not come up"
            time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=10):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def test_the_checks_and_the_metadata_are_in_the_page_of_the_asset(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    install("chromium")
    with _webserver(environment) as url, browser() as page:
        page.visit(f"{url}/assets/embedded_state/Feed_main_0?view=overview")
        page.wait_for("document.body.innerText.includes('that is embedded in this program')")
        assert "Feed[main]" in page.value("document.body.innerText")
        page.visit(f"{url}/assets/embedded_state/Feed_suppliers_1?view=checks&checkDetail=fresh")
        page.wait_for("document.body.innerText.includes('the maximum is 24 hours')")
        page.value(_CLOSE)
        said = page.value("document.body.innerText")
        picture = tmp_path / "health.png"
        page.screenshot(picture)
    for words in ("current", "fresh", "verified", "2026-01-01"):
        assert words in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    if target := os.environ.get("BUNDLER_TEST_SCREENSHOT"):
        shutil.copy(picture, target)
