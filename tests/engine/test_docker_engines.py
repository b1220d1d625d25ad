"""Engines: near and far, with what they can and what they lack."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.dockerbuild import detect
from bundler.errors import (
    BundlerError,
    ToolFailed,
)
from tests.pex.test_without_a_home import AS_NOBODY
from tests.support.dockerprojects import Project
from tests.support.engine import Engine
from tests.support.workdir import WorkDir

pytestmark = pytest.mark.engine(offline=True)


def test_a_remote_engine_is_reached_through_the_cli(project: Project, tcp: str) -> None:
    environment = {k: v for k, v in project.engine.environment.items() if k != "DOCKER_HOST"}
    docker = Docker(project.engine.clis[-1], ("-H", tcp), environment)
    built = project.build(docker=docker)
    assert project.inspect()["Id"] == built.image_id


_REFUSED = [
    ("unix://{path}/none.sock", "FROM scratch\n", "No Docker engine responds"),
    ("unix://{path}/denied.sock", "FROM scratch\n", "This user may not use the Docker engine"),
    ("tcp://127.0.0.1:9", "FROM scratch\n", "127.0.0.1:9"),
    (None, "FROM x\nRUN --mount=type=cache,target=/c true\n",
     "Dockerfile:2 requires BuildKit"),
]  # fmt: skip


@pytest.mark.parametrize(("host", "dockerfile", "says"), _REFUSED)
def test_what_cannot_end_well_is_said_before_anything_is_refreshed(
    wd: WorkDir, engine: Engine, host: str | None, dockerfile: str, says: str
) -> None:
    wd.write(
        "pyproject.toml",
        '[project]\nname = "shop"\n[[tool.state-bundler.source]]\nkey = "K"\npath = "state"\n'
        'command = ["touch", "asked", "{state_path}"]\n',
    )
    wd.write("Dockerfile", dockerfile)
    wd.write(".gitignore", "state\n")
    wd.commit("project")
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        os.chmod(folder, 0o755)
        listener.bind(f"{folder}/denied.sock")
        listener.listen()
        os.chmod(f"{folder}/denied.sock", 0)
        environment = {
            **os.environ, **wd.env, "DOCKER_BUILDKIT": "0", "STATE_BUNDLER_DOCKER": engine.clis[0],
            "DOCKER_HOST": host.format(path=folder) if host else engine.host,
        }  # fmt: skip
        command = [sys.executable, "-m", "bundler", "build", "docker", "-t", "shop:1", "."]
        prefix = AS_NOBODY if "denied" in (host or "") and os.geteuid() == 0 else ()
        done = subprocess.run(
            [*prefix, *command], cwd=wd.path, capture_output=True, text=True, check=False,
            env=environment,
        )  # fmt: skip
    assert done.returncode == 71, done.stderr
    assert says in done.stderr
    assert not (wd.path / "asked").exists()


@pytest.mark.parametrize(
    "words", [("update", "shop:1"), ("embed", "docker-daemon:shop:1", "-t", "2")]
)
def test_so_is_an_engine_that_has_the_image(wd: WorkDir, words: tuple[str, ...]) -> None:
    wd.write(
        "pyproject.toml",
        '[[tool.state-bundler.source]]\nkey = "K"\npath = "state"\n'
        'command = ["touch", "asked", "{state_path}"]\n',
    )
    environment = {**os.environ, **wd.env, "DOCKER_HOST": f"unix://{wd.path}/none.sock"}
    done = subprocess.run(
        [sys.executable, "-m", "bundler", *words, "--no-guard"], cwd=wd.path, capture_output=True,
        text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 71, done.stderr
    assert "No Docker engine responds" in done.stderr
    assert not (wd.path / "asked").exists()


def test_a_build_starts_docker_for_its_version_to_build_and_to_ask_the_interpreter(
    project: Project, tmp_path: Path
) -> None:
    """Each start costs more than all that git is asked."""
    project.configure()
    wrapper, log = tmp_path / "bin" / "docker", tmp_path / "log"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$1 $2" >> {log}\nexec {project.engine.clis[0]} "$@"\n')
    wrapper.chmod(0o755)
    argv = [sys.executable, "-m", "bundler", "build", "docker", "-q", "-t", project.name, "."]

    def build() -> subprocess.CompletedProcess[str]:
        environment = project.environment(STATE_BUNDLER_DOCKER=str(wrapper))
        return subprocess.run(
            argv, cwd=project.root, capture_output=True, text=True, check=False, env=environment
        )

    done = build()
    assert done.returncode == 0, done.stderr
    started = [words.split()[0] for words in log.read_text().splitlines()]
    assert [word for word in started if word != "buildx"] == ["--version", "build", "run"]
    project.engine.docker("image", "rm", project.name)

    wrapper.write_text("#!/bin/sh\necho 'broken pipe dream' >&2\nexit 3\n")
    done = build()
    assert done.returncode == 71, done.stderr
    assert "broken pipe dream" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_engine_is_an_error(tmp_path: Path, engine: Engine) -> None:
    environment = {**engine.environment, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    with pytest.raises(ToolFailed, match=r"No Docker engine responds"):
        Docker(engine.clis[0], (), environment).connect()
    with pytest.raises(ToolFailed, match="not found"):
        Docker("docker-that-is-not-there", (), environment).connect()
    with pytest.raises(ToolFailed, match="not found"):  # before a refresh
        Docker("docker-that-is-not-there", (), engine.environment).refuse_missing()


def test_buildkit_without_buildx_is_said(engine: Engine) -> None:
    for cli in engine.clis:
        docker = Docker(cli, (), {**engine.environment, "DOCKER_BUILDKIT": "1"})
        try:
            builder = detect(docker)
        except BundlerError as error:
            assert "buildx" in error.what  # noqa: PT017  # either is right, by what is installed
        else:
            assert builder.is_buildkit
