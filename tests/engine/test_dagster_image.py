"""An image with ``--embed-versioned`` and real Dagster in it starts while its store is down.

The same for a PEX is in `test_dagster_storage`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import stores
from tests.support.deployments import LOAD, PROJECT, Deployment, build, make_home, push
from tests.support.engine import Engine, make_environment_image
from tests.support.environments import ROOT

pytestmark = pytest.mark.engine

_DOCKERFILE = """\
FROM {base}
COPY . /app
WORKDIR /app
USER 1000
ENV PYTHONPATH=/app/src:/app/library DAGSTER_HOME=/tmp/home HOME=/tmp
"""
_IMAGE = "sbt/embedded"


def test_a_container_without_network_starts_from_what_is_embedded(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(PROJECT, tmp_path / "shop")
    shutil.copytree(
        ROOT / "bundler", root / "library/bundler", ignore=shutil.ignore_patterns("__pycache__")
    )
    base = make_environment_image(engine, "store")
    (root / "Dockerfile").write_text(_DOCKERFILE.format(base=base))
    (root / ".dockerignore").write_text("**/.*\n")
    with stores.s3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        url = server.url()
        deployment = Deployment(root, make_home(root / "home", url), url)
        push(deployment, tmp_path, "embedded")
        environ = {k: v for k, v in engine.environment.items() if k.startswith("DOCKER_")}
        environ["STATE_BUNDLER_DOCKER"] = engine.clis[0]
        build(deployment, "docker", "--embed-versioned", "-t", _IMAGE, str(root), **environ)
        push(deployment, tmp_path, "newer")
        assert deployment.assets() == ["file_newer", "folder_newer"], "where the store answers"
    shutil.rmtree(root)
    variables = [f"--env={name}={value}" for name, value in server.environment.items()]
    run = ["run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", *variables]
    start = 'cp -r /app/home /tmp && exec python -c "$0"'
    done = engine.docker(*run, _IMAGE, "sh", "-c", start, LOAD)
    assert done.stdout.split() == [b"file_embedded", b"folder_embedded"]
    assert b"Using the state embedded in this program." in done.stderr
