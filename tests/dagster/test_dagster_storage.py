"""The storage class and the job under real Dagster, in its own environment, on a folder."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.store import checking
from tests.support import stores
from tests.support.deployments import JOB, LOAD, PROJECT, Deployment, build, make_home, push
from tests.support.environments import ROOT

# The interface as Dagster's own class offers it.
INTERFACE = """
import os, tempfile, uuid
from pathlib import Path
from typing import Any
from dagster import DagsterInstance

def write(make):
    scratch = Path(tempfile.mkdtemp())
    make(scratch)
    return scratch / "state"

with DagsterInstance.get() as instance:
    storage = instance.defs_state_storage
    assert storage.get_latest_defs_state_info() is None
    assert storage.get_latest_version("A") is None
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    storage.upload_state_from_path("A", one, write(lambda d: (d / "state").write_text("1")))
    storage.upload_state_from_path("A", two, write(lambda d: (d / "state").write_text("1")))
    assert storage.get_latest_version("A") == two, "also where the state is the same"
    storage.set_latest_version("A", one)
    assert storage.get_latest_version("A") == one
    storage.set_latest_version("B[x]", "__local__")
    assert storage.list_state_keys_with_prefix("B") == ["B[x]"]
    info = storage.get_latest_defs_state_info().info_mapping
    assert info["B[x]"].management_type.value == "LOCAL_FILESYSTEM"
    storage.set_latest_version("B[x]", None)
    storage.set_latest_version("B[x]", None)
    assert list(storage.get_latest_defs_state_info().info_mapping) == ["A"]
    target = Path(tempfile.mkdtemp()) / "state"
    storage.download_state_to_path("A", two, target)
    assert target.read_text() == "1"
    # A path from elsewhere is taken without its neighbours.
    home = Path(os.environ["DAGSTER_HOME"]) / "elsewhere"
    (home / "state").mkdir(parents=True)
    (home / "state" / "file").write_text("inside")
    (home / "secret").write_text("next to it")
    three = str(uuid.uuid4())
    storage.upload_state_from_path("C", three, home / "state")
    target = Path(tempfile.mkdtemp()) / "state"
    storage.download_state_to_path("C", three, target)
    assert (target / "file").read_text() == "inside" and not (target.parent / "secret").exists()
    for key, version in (("B", one), ("A", str(uuid.uuid4()))):
        try:
            storage.download_state_to_path(key, version, target)
        except Exception as error:
            assert key in str(error) or version in str(error), error
        else:
            raise AssertionError
"""


# What a step of the job refuses, and what the project's settings accept.
STEPS = """
import os
from pathlib import Path
from dagster import DagsterInstance
from bundler.dagster_job import _publish, _refresh
from bundler.errors import BundlerError

KEY, PROJECT = "FileComponent[file]", Path.cwd()

def refresh(tables):
    os.environ["SHOP_TABLES"] = tables
    try:
        return _refresh(instance, PROJECT, KEY)
    except BundlerError as error:
        return error.what

with DagsterInstance.get() as instance:
    many = ",".join(map(str, range(40)))
    first = refresh(many)
    _publish(instance, [first])
    assert refresh(many) == first, "unchanged"
    os.environ["VENDOR_TOKEN"] = "canary-token-of-the-vendor"
    for tables, said in (("a,b", "has shrunk"), (many + ",canary-token-of-the-vendor", "TOKEN")):
        assert said in refresh(tables), refresh(tables)
    settings = PROJECT / "pyproject.toml"
    settings.write_text(settings.read_text() + "\\n[tool.state-bundler]\\nshrink = 0\\n")
    assert " " not in refresh("a,b"), refresh("a,b")
"""


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    url = f"file://{tmp_path}/store"
    shutil.copytree(PROJECT, tmp_path / "shop")
    return Deployment(tmp_path / "shop", make_home(tmp_path / "home", url), url)


def test_the_interface(deployment: Deployment) -> None:
    deployment.script(INTERFACE)
    assert not checking.check(deployment.store).problems


def test_dagster_refreshes_to_it_and_a_fresh_instance_loads(
    deployment: Deployment, tmp_path: Path
) -> None:
    deployment.run("dg", "utils", "refresh-defs-state", SHOP_TABLES="a,b")
    fresh = replace(deployment, home=make_home(tmp_path / "fresh", deployment.url))
    assert fresh.assets() == ["file_a", "file_b", "folder_a", "folder_b"]
    assert set(deployment.store.currents()) == {"FileComponent[file]", "FolderComponent[folder]"}


def test_the_job_refreshes_all_keys_concurrently_and_reloads_the_code_location(
    deployment: Deployment,
) -> None:
    """With a process for each step, as is Dagster's default."""
    served = replace(deployment, port=_free_port())
    with _webserver(served) as ask:
        assert ask() == []
        served.run(
            *JOB,
            SHOP_TABLES="x,y",
            SHOP_LOCATION="versioned_shop.definitions",
            SHOP_WEBSERVER=f"localhost:{served.port}",
        )
        assert ask() == ["file_x", "file_y", "folder_x", "folder_y"]
    (change,) = served.store.history()
    assert [move.key for move in change.moves] == ["FileComponent[file]", "FolderComponent[folder]"]
    assert not checking.check(served.store).problems


def test_the_job_runs_in_one_process_and_keeps_its_names_where_the_project_says(
    deployment: Deployment, tmp_path: Path
) -> None:
    """Steps on several machines need a place for them that all see: the project's IO manager."""
    names = tmp_path / "names"
    executor = "dagster:in_process_executor"
    deployment.run(*JOB, SHOP_TABLES="x", SHOP_EXECUTOR=executor, SHOP_NAMES=str(names))
    (change,) = deployment.store.history()
    assert [move.key for move in change.moves] == ["FileComponent[file]", "FolderComponent[folder]"]
    kept = b"".join(path.read_bytes() for path in names.rglob("*") if path.is_file())
    for move in change.moves:
        assert str(move.after).encode() in kept


def test_a_step_of_the_job_refuses_what_a_refresh_refuses(deployment: Deployment) -> None:
    deployment.script(STEPS)
    (change,) = deployment.store.history()
    assert [move.key for move in change.moves] == ["FileComponent[file]"]


def test_a_program_starts_from_what_is_embedded_while_the_stores_server_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster loads the newest version from a store that answers, else the embedded one; a pinned
    program always loads the version of its build, from the store or from itself."""
    with stores.s3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        url = server.url()
        shutil.copytree(PROJECT, tmp_path / "shop")
        deployment = Deployment(tmp_path / "shop", make_home(tmp_path / "home", url), url)
        push(deployment, tmp_path, "old")
        build(deployment, "oci", "-o", "layout")
        pins = tmp_path / "pins"
        shutil.copytree(deployment.root, pins)  # as a plain COPY puts it into an image
        shutil.copy(deployment.root / "pyproject.toml", deployment.root / "src")  # it asks for one
        # Dagster comes from the environment: what is tried is where the states come from.
        pexs = ("--", "-D", "src", "--inherit-path=fallback")
        build(deployment, "pex", "-o", "shop.pex", "--embed-versioned", *pexs)
        shutil.rmtree(deployment.root / "src")  # what is left is the PEX
        push(deployment, tmp_path, "new")
        old, new = ["file_old", "folder_old"], ["file_new", "folder_new"]
        follows = make_home(tmp_path / "follows", url, versions="pinned")

        def program() -> list[str]:
            environ = {"PEX_ROOT": str(tmp_path / "pex"), "PYTHONPATH": str(ROOT)}
            return deployment.run("python", "shop.pex", "-c", LOAD, **environ).split()

        assert program() == new, "the store answers"
        assert replace(deployment, root=pins, home=follows).assets() == old, "pinned, in the store"
    assert program() == old, "its server is stopped"
    with open_artifact(str(deployment.root / "shop.pex")) as artifact:
        assert not verify(artifact).all_problems
    state = next((tmp_path / "pex").rglob("FileComponent__file__/state"))
    state.chmod(0o644)
    state.write_text("[]")
    with pytest.raises(AssertionError, match="does not match its manifest"):
        program()


@contextmanager
def _webserver(deployment: Deployment) -> Iterator[Callable[[], list[str]]]:
    """A code server behind a webserver; gives a function that asks it for its assets."""
    argv = ["dagster-webserver", "-m", "versioned_shop.definitions", "-h", "localhost"]
    process = subprocess.Popen(
        [*argv, "-p", str(deployment.port)],
        cwd=deployment.root,
        env=deployment.env(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://localhost:{deployment.port}/graphql"
    try:
        _wait_for(url, process)
        yield lambda: _assets(url)
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        try:
            _graphql(url, "{version}")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
        else:
            return
    raise AssertionError("the webserver did not come up")


def _assets(url: str) -> list[str]:
    found = _graphql(url, "{assetNodes{assetKey{path}}}")["data"]["assetNodes"]
    return sorted("/".join(node["assetKey"]["path"]) for node in found)


def _graphql(url: str, query: str) -> Any:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
