"""`bundler.dagster_job` on Dagster's executors of several machines: `make executors`.

In process and multiprocess are in `test_dagster_storage`. Celery has Debian's Redis as its broker
and its own worker; Docker's steps are containers of the tests' engine, and so are those of
Kubernetes, whose API is a stand-in (`kubernetesapi`): there is no cluster here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bundler.store import checking
from tests.support import kubernetesapi, stores
from tests.support.deployments import JOB, PROJECT, Deployment, make_home
from tests.support.engine import Engine, install, make_environment_image
from tests.support.environments import ROOT

_CELERY = "dagster_celery:celery_executor"
_IMAGE = "sbt/versioned-shop"
_DOCKERFILE = """\
FROM {base}
COPY . /app
WORKDIR /app
ENV PYTHONPATH=/app/src:/app/library
"""
_KEYS = ["FileComponent[file]", "FolderComponent[folder]"]
_EXECUTE = ["dagster", "api", "execute_step"]
_STEPS = 2 + len(_KEYS)  # one finds the keys, one publishes


@dataclass(frozen=True)
class Executed:
    """A deployment on S3. folder: what its machines share: the instance, and names of versions."""

    deployment: Deployment
    folder: Path
    variables: Mapping[str, str]

    def run(self, executor: str, config: Mapping[str, Any], **env: str) -> list[dict[str, Any]]:
        """Runs the job; returns the events of its steps in which they were handed to others."""
        path = self.folder / "run.yaml"
        path.write_text(json.dumps({"execution": {"config": config}}))
        variables = {**self.variables, **env, "SHOP_EXECUTOR": executor}
        self.deployment.run(*JOB, "-c", str(path), **variables)
        events: list[dict[str, Any]] = json.loads(
            self.deployment.run("python", "-c", _EVENTS, **variables)
        )
        return events

    def assert_one_set(self) -> None:
        (change,) = self.deployment.store.history()
        assert [move.key for move in change.moves] == _KEYS
        assert not checking.check(self.deployment.store).problems


_EVENTS = """
import json
from dagster import DagsterInstance
with DagsterInstance.get() as instance:
    (run,) = instance.get_runs()
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id)]
print(json.dumps([
    {"step": event.step_key, "message": event.message}
    for event in events
    if event and event.event_type_value in ("STEP_WORKER_STARTING", "ENGINE_EVENT")
]))
"""


@pytest.fixture
def executed(tmp_path: Path, s3_server: stores.Server, monkeypatch: pytest.MonkeyPatch) -> Executed:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    url, folder = s3_server.url(), tmp_path / "shared"
    folder.mkdir()
    root = shutil.copytree(PROJECT, tmp_path / "shop")
    home = make_home(folder / "home", url)
    variables = {
        **s3_server.environment,
        "DAGSTER_HOME": str(home),
        "SHOP_NAMES": str(folder / "names"),
        "SHOP_TABLES": "x,y",
    }
    return Executed(Deployment(root, home, url, environment="executors"), folder, variables)


# --- Celery ---------------------------------------------------------------------------------------


def test_celery(executed: Executed) -> None:
    with _redis(executed.folder) as url:
        config = {"broker": f"{url}/0", "backend": f"{url}/1"}
        with _worker(executed, config) as log:
            executed.run(_CELERY, config)
        assert log.read_text().count(" succeeded in ") == _STEPS
    executed.assert_one_set()


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    port = _free_port()
    argv = [install("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    process = subprocess.Popen([*argv, "--dir", folder], stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def _worker(executed: Executed, config: Mapping[str, Any]) -> Iterator[Path]:
    """A worker that is ready; gives its log."""
    log, file = executed.folder / "worker.log", executed.folder / "worker.yaml"
    file.write_text(json.dumps({"execution": {"config": config}}))
    argv = ["dagster-celery", "worker", "start", "-A", "bundler.dagster_celery", "-y", str(file)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            argv,
            cwd=executed.deployment.root,
            env=executed.deployment.env(**executed.variables, SHOP_EXECUTOR=_CELERY),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        _wait_for(" ready.", log, process)
        yield log
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the command starts the worker itself
        process.wait(60)


def _wait_for(text: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- containers -----------------------------------------------------------------------------------


@pytest.fixture
def image(engine: Engine, executed: Executed, tmp_path: Path) -> str:
    """An image with the project and this package on what Dagster's executors need."""
    context = shutil.copytree(executed.deployment.root, tmp_path / "context")
    shutil.copytree(
        ROOT / "bundler", context / "library/bundler", ignore=shutil.ignore_patterns("__pycache__")
    )
    base = make_environment_image(engine, "executors")
    (context / "Dockerfile").write_text(_DOCKERFILE.format(base=base))
    engine.docker("build", "-t", _IMAGE, str(context))
    return _IMAGE


def test_docker(executed: Executed, engine: Engine, image: str) -> None:
    shared = str(executed.folder)
    config = {
        "image": image,
        "env_vars": [*executed.variables, "SHOP_EXECUTOR"],
        "container_kwargs": {
            "auto_remove": True,
            "network_mode": "host",
            "volumes": {shared: {"bind": shared, "mode": "rw"}},
        },
    }
    docker_host = {"DOCKER_HOST": engine.host}
    events = executed.run("dagster_docker:docker_executor", config, **docker_host)
    launched = [event for event in events if "Launching step in Docker" in event["message"]]
    assert len(launched) == _STEPS
    executed.assert_one_set()


_RUN_LAUNCHER = """\
run_launcher:
  module: dagster_k8s
  class: K8sRunLauncher
  config:
    service_account_name: shop
    instance_config_map: dagster-instance
    dagster_home: {home}
    load_incluster_config: false
    kubeconfig_file: {kubeconfig}
"""


def test_kubernetes(executed: Executed, engine: Engine, image: str) -> None:
    shared, kubeconfig = str(executed.folder), executed.folder / "kubeconfig"
    home = executed.deployment.home
    with (home / "dagster.yaml").open("a") as stream:
        stream.write(_RUN_LAUNCHER.format(home=home, kubeconfig=kubeconfig))
    config = {
        "load_incluster_config": False,
        "kubeconfig_file": str(kubeconfig),
        "job_namespace": "shop",
        "job_image": image,
        "env_vars": [*executed.variables, "SHOP_EXECUTOR"],
        "volumes": [{"name": "shared", "hostPath": {"path": shared}}],
        "volume_mounts": [{"name": "shared", "mountPath": shared}],
    }
    with kubernetesapi.cluster(engine, kubeconfig, {"dagster-instance": home}) as cluster:
        executed.run("dagster_k8s:k8s_job_executor", config)
    assert [argv[:3] for argv in cluster.jobs.values()] == [_EXECUTE] * _STEPS
    executed.assert_one_set()
