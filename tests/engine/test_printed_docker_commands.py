"""The docker commands that a message tells the user to run, pasted as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import registries
from tests.support.bundles import PLACE, make_bundle, make_record
from tests.support.dockerprojects import Project
from tests.support.embedding import embed_image
from tests.support.engine import Engine

pytestmark = pytest.mark.engine
PROGRAM = Path(sys.executable).with_name("state-bundler")


@pytest.fixture
def registry() -> Iterator[registries.Registry]:
    with registries.running() as server:
        yield server


@pytest.fixture
def image(registry: registries.Registry, project: Project, engine: Engine) -> Iterator[str]:
    """An image with state that the registry has and the engine does not."""
    name = f"{registry.host}/{project.name.partition('/')[2]}:1"
    bundle = make_bundle(project.root / "state", {"Catalog": {"state": b"tea"}}, place=PLACE)
    project.write("Dockerfile", "FROM scratch\nWORKDIR /app\nCOPY src /app/src\n")
    engine.docker("build", "-q", "-t", f"{name}-code", str(project.root))
    embed_image(project.docker().connect(), f"{name}-code", [bundle], make_record(bundle), name)
    engine.docker("push", name)
    engine.docker("image", "rm", "--force", name, f"{name}-code")
    yield name
    engine.docker("image", "rm", "--force", name, check=False)


def said(project: Project, *words: str, code: int) -> str:
    done = run(project, [str(PROGRAM), *words])
    assert done.returncode == code, done
    return done.stdout + done.stderr


def run(project: Project, argv: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = project.environment()
    environment["PATH"] = f"{Path(project.engine.clis[0]).parent}:{environment['PATH']}"
    return subprocess.run(
        argv, cwd=project.root, env=environment, input=stdin, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def paste(project: Project, command: str, stdin: str = "") -> None:
    done = run(project, ["sh", "-c", command], stdin)
    assert done.returncode == 0, done


@pytest.mark.parametrize("command", ["verify", "status", "extract -o out"])
def test_an_image_that_the_engine_does_not_have(project: Project, image: str, command: str) -> None:
    verb, *more = command.split()
    text = said(project, verb, f"docker-daemon:{image}", *more, code=2)
    (fix,) = re.findall(r"docker pull \S+", text)
    paste(project, fix)
    said(project, verb, f"docker-daemon:{image}", *more, code=0)


def test_an_engine_s_tag_for_an_image_of_a_registry(project: Project, image: str) -> None:
    project.configure()
    bundle = project.root / "state"
    words = ["embed", f"docker://{image}", "--tag", "docker-daemon:sbt/more:1"]
    text = said(project, *words, "--state-from", str(bundle), code=2)
    (fix,) = re.findall(r"`(docker pull [^`]+)`", text)
    paste(project, fix)
    words[1] = f"docker-daemon:{image}"
    said(project, *words, "--state-from", str(bundle), code=0)


def test_a_registry_that_wants_a_login(
    project: Project, registry: registries.Registry, image: str
) -> None:
    registry.user = ("me", "secret")
    text = said(project, "verify", f"docker://{image}", code=77)
    (fix,) = re.findall(r"docker login \S+?(?=[,.]? |[,.]?$)", text, re.MULTILINE)
    paste(project, f"{fix} --username me --password-stdin", "secret")
    said(project, "verify", f"docker://{image}", code=0)


def test_an_engine_that_does_not_respond(project: Project) -> None:
    environment = "DOCKER_HOST=unix:///nowhere/docker.sock"
    text = run(project, ["env", environment, str(PROGRAM), "verify", "docker-daemon:x"])
    assert text.returncode == 71
    (fix,) = re.findall(r"`(docker version)`", text.stderr)
    assert "Cannot connect" in run(project, ["env", environment, *fix.split()]).stderr
