"""A code location none of whose components keeps its state in the image: docker's own image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import PLACE
from tests.support.dockerprojects import Project

pytestmark = pytest.mark.engine(offline=True)

SAID = "No component has state to embed: the artifact is built without state."
_WITHOUT = f"""\
[project]
name = "plain"
version = "1"

[[tool.state-bundler.source]]
component = "parts:every"
path = "src/{PLACE}"
"""


def bundler(
    project: Project, *words: str, code: int = 0, **more: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bundler", *words], cwd=project.root,
        env=project.environment(**more), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def without_state(project: Project, folder: str = ".") -> None:
    project.write(f"{folder}/pyproject.toml", _WITHOUT)
    project.write(f"{folder}/parts.py", "def every():\n    return []\n")


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_alone_it_is_dockers_own_image(project: Project, buildkit: str) -> None:
    project.write("Dockerfile", f"{(project.root / 'Dockerfile').read_text()}LABEL team=shop\n")
    without_state(project)
    project.write(".dockerignore", "**/__pycache__\n")
    theirs = f"{project.name}:theirs"
    environment = project.environment(DOCKER_BUILDKIT=buildkit)
    argv = [project.engine.clis[0], "build", "-q", "-t", theirs, project.root]
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    build = ["build", "docker", "--no-guard", "-t", project.name, "--iidfile", "../iid", "."]
    done = bundler(project, *build, DOCKER_BUILDKIT=buildkit)
    assert SAID in done.stderr
    ours, docker = project.inspect(), project.inspect(theirs)
    assert done.stdout == f"✓ {project.name} {ours['Id']}\n  loaded: parts\n"
    assert len(ours["RootFS"]["Layers"]) == len(docker["RootFS"]["Layers"])
    for found in (
        ours,
        docker,
    ):  # by the classic builder it names the container that it was made in
        found["Config"].pop("Hostname"), found["Config"].pop("Image")
    assert ours["Config"] == docker["Config"]
    assert (project.root.parent / "iid").read_text() == ours["Id"]
    quiet = bundler(project, *build, "-q", DOCKER_BUILDKIT=buildkit)
    assert quiet.stdout == f"{ours['Id']}\n"
    project.engine.docker("image", "rm", "--force", theirs)


def test_state_that_the_dockerfile_brings_along_is_refused(project: Project) -> None:
    without_state(project)
    copied = "COPY elsewhere /app/src/shop/defs/\n"
    project.write("Dockerfile", f"{(project.root / 'Dockerfile').read_text()}{copied}")
    (project.root / "elsewhere").mkdir()
    project.new_state().root.rename(project.root / "elsewhere/.local_defs_state")
    done = bundler(project, "build", "docker", "--no-guard", "-t", project.name, ".", code=76)
    assert "contains state that was not refreshed for it: " in done.stderr
    assert f"/app/src/{PLACE}" in done.stderr
    assert not project.engine.has_image(project.name)


def test_in_a_fleet_it_is_built_as_it_is_and_the_others_get_their_state(project: Project) -> None:
    for path in list(project.root.iterdir()):
        target = project.root / "shop" / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    shop = Project(project.root / "shop", project.engine, project.name)
    shop.configure()
    project.write("plain/Dockerfile", (shop.root / "Dockerfile").read_text())
    without_state(project, "plain")
    project.write("plain/src/plain/__init__.py")
    project.write("pyproject.toml", '[tool.uv.workspace]\nmembers = ["shop", "plain"]\n')
    tag = f"{project.name}:{{name}}"
    done = bundler(
        project, "build", "--each", "--workers", "1", "--report", "report.json",
        "docker", "--no-guard", "-t", tag, ".",
    )  # fmt: skip
    assert "2 built, 0 failed." in done.stdout
    assert (
        f"{project.name}:plain {project.inspect(f'{project.name}:plain')['Id']} (no state)"
        in done.stdout
    )
    logs = {
        build["name"]: Path(build["log"]).read_text()
        for build in json.loads((project.root / "report.json").read_text())["builds"]
    }
    assert SAID in logs["plain"]
    assert SAID not in logs["shop"]
    labels = project.inspect(f"{project.name}:shop")["Config"]["Labels"]
    assert any(name.startswith("io.state-bundler.") for name in labels)
    project.engine.docker("image", "rm", "--force", f"{project.name}:plain", f"{project.name}:shop")
