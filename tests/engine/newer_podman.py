"""Podman behind Docker's API takes only whole images. Run by ``make docker-newer``."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.artifacts.image.engine.embedding import tag
from bundler.artifacts.image.engine.opening import open_image
from bundler.artifacts.verify import verify
from tests.support import engine as engines
from tests.support.bundles import make_record
from tests.support.dockerprojects import Project, verified
from tests.support.embedding import embed_image

pytestmark = pytest.mark.engine

FROM_SCRATCH = "FROM scratch\nWORKDIR /app\nCOPY src /app/src\nENV PYTHONPATH=/app/src\n"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Engine]:
    """Its service, with its own store."""
    home = tmp_path_factory.mktemp("podman")
    program = engines.install("podman")
    store = ["--root", str(home / "root"), "--runroot", str(home / "run"), "--storage-driver=vfs"]
    host = f"unix://{home / 'podman.sock'}"
    argv = [program, *store, "system", "service", "--time=0", host]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            clis = engines._clis(Path(engines.install("dockerd", "docker.io")))
            deadline = time.monotonic() + 30
            while not engines._answers(clis[0], host):
                assert time.monotonic() < deadline, "podman does not answer"
                time.sleep(0.2)
            yield engines.Engine(host, clis)
        finally:
            process.terminate()


def test_an_image_in_podman(podman: engines.Engine, tmp_path: Path) -> None:
    project = Project(tmp_path / "shop", podman, "localhost/sbt/shop")
    project.write("Dockerfile", FROM_SCRATCH)
    project.write("src/shop/defs/__init__.py")
    first = project.build(docker=project.docker(0, "0"))
    with open_image(project.name, project.docker(0, "0")) as artifact:
        assert verify(artifact).all_problems == ()
    bundle = project.new_state()
    engine = project.docker(0, "0").connect()
    assert engine.is_podman
    made = embed_image(engine, project.name, [bundle], make_record(bundle), check=verified)
    tag(engine, made.image_id, project.name)
    assert made.image_id != first.image_id
    before, after = project.inspect(first.image_id), project.inspect()
    assert before["RootFS"]["Layers"][:-1] == after["RootFS"]["Layers"][:-1]
