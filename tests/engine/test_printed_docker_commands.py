"""The docker commands that a message asks the user to run, pasted as they are printed."""

from __future__ import annotations

import base64
import json
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


def test_an_archive_of_a_container(project: Project, image: str) -> None:
    engine = project.engine
    engine.docker("pull", image)
    engine.docker("create", "--name", "to-export", image, "true")
    engine.docker("export", "-o", str(project.root / "some.tar"), "to-export")
    engine.docker("rm", "to-export")
    text = said(project, "verify", "oci:some.tar", code=76)
    (fix,) = re.findall(r"`(docker save [^`]+)`", text)
    paste(project, fix.replace("FILE", "some.tar").replace("IMAGE", image))
    said(project, "verify", "oci:some.tar", code=0)


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


def test_an_entry_that_cannot_be_read(
    project: Project, registry: registries.Registry, image: str, tmp_path: Path
) -> None:
    registry.user = ("me", "secret")
    settings = tmp_path / "docker"
    settings.mkdir()
    entry = {"auths": {registry.host: {"auth": base64.b64encode(b"no colon").decode()}}}
    (settings / "config.json").write_text(json.dumps(entry))
    environment = f"DOCKER_CONFIG={settings}"
    refused = run(project, ["env", environment, str(PROGRAM), "verify", f"docker://{image}"])
    assert refused.returncode == 78, refused
    (fix,) = re.findall(r"docker login \S+$", refused.stderr, re.MULTILINE)
    paste(project, f"{environment} {fix} --username me --password-stdin", "secret")
    again = run(project, ["env", environment, str(PROGRAM), "verify", f"docker://{image}"])
    assert again.returncode == 0, again


def test_an_engine_that_does_not_respond_to_doctor(project: Project) -> None:
    project.configure()
    environment = "DOCKER_HOST=unix:///nowhere/docker.sock"
    found = run(project, ["env", environment, str(PROGRAM), "doctor"])
    (fix,) = re.findall(r"Run (docker version) for details\.", found.stdout)
    assert "Cannot connect" in run(project, ["env", environment, *fix.split()]).stderr


def test_what_the_plugin_is_tried_with(project: Project, tmp_path: Path) -> None:
    environment = f"DOCKER_CONFIG='{tmp_path / 'a config'}'"
    installed = run(project, ["sh", "-c", f"{environment} {PROGRAM} init --docker-plugin"])
    (fix,) = re.findall(r"Try it: (docker bundle .*)", installed.stderr)
    shown = run(project, ["sh", "-c", f"{environment} {fix}"])
    assert "Usage: docker bundle build" in shown.stdout


@pytest.mark.parametrize(
    ("words", "stdin", "fix"),
    [
        ("-t NAME", "", "state-bundler build docker -t NAME ."),
        ("-t NAME -f - -", "FROM scratch", "state-bundler build docker -f - ."),
    ],
)
def test_a_context_that_is_missing(
    project: Project, plugged: dict[str, str], words: str, stdin: str, fix: str
) -> None:
    project.write("Dockerfile", "FROM scratch\nWORKDIR /app\nCOPY src /app/src\n")
    project.configure()
    environment = f"DOCKER_CONFIG={plugged['DOCKER_CONFIG']} PATH={PROGRAM.parent}:$PATH"
    typed = f"{environment} docker bundle build {words}".replace("NAME", project.name)
    refused = run(project, ["sh", "-c", typed], stdin)
    assert refused.returncode == 2, refused
    assert fix in refused.stderr
    dockerfile = (project.root / "Dockerfile").read_text() if "-f -" in fix else ""
    paste(project, f"{environment} {fix.replace('NAME', project.name)}", dockerfile)
