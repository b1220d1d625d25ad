"""Runs the commands of docs/how-to/compose.md in order, with Debian's next Compose as a plugin."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine, make_python_base
from tests.support.environments import ROOT
from tests.support.newer_engine import program
from tests.support.workdir import WorkDir

pytestmark = pytest.mark.engine

_PAGE = (ROOT / "docs/how-to/compose.md").read_text()
_PROJECT = """\
[project]
name = "shop"
version = "1"

[tool.state-bundler]
image-path = "/app/shop/state"

[[tool.state-bundler.source]]
key = "Catalogue"
command = ["cp", "../catalogue", "{state_path}"]
path = "src/shop/state"
"""
_DOCKERFILE = "FROM {base}\nCOPY src/ /app/\nENV PYTHONPATH=/app\n"
# In place of the page's code server.
_COMMAND = """[python3, -c, "import time; time.sleep(600)"]"""
_READ = "exec -T shop cat /app/shop/state/Catalogue/state"


class Compose:
    """A project with the page's Compose file."""

    def __init__(self, wd: WorkDir, engine: Engine) -> None:
        self.wd = wd
        config = wd.path.parent / "docker"
        (config / "cli-plugins").mkdir(parents=True)
        (config / "cli-plugins/docker-compose").symlink_to(program("docker-compose"))
        folders = (Path(sys.executable).parent, Path(engine.clis[0]).parent, os.environ["PATH"])
        self.environment = {
            **engine.environment,
            **wd.env,
            "DOCKER_CONFIG": str(config),
            "DOCKER_BUILDKIT": "0",
            "PATH": os.pathsep.join(map(str, folders)),
            "COMPOSE_PROJECT_NAME": "sbt-compose",
        }

    def write(self, *more: str) -> None:
        """The page's Compose file, with more lines for the service."""
        (shown,) = re.findall(r"```yaml\n(.*?)```", _PAGE, re.DOTALL)
        lines = re.sub(r"command: .*", f"command: {_COMMAND}", shown) + "    init: true\n"
        self.wd.write("compose.yaml", lines + "".join(f"    {line}\n" for line in more))

    def run(self, command: str) -> str:
        done = subprocess.run(
            shlex.split(command), cwd=self.wd.path, env=self.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def compose(wd: WorkDir, engine: Engine) -> Iterator[Compose]:
    wd.write("pyproject.toml", _PROJECT)
    wd.write("src/shop/__init__.py", "")
    wd.write(".gitignore", "/src/shop/state\n")
    wd.write("Dockerfile", _DOCKERFILE.format(base=make_python_base(engine)))
    wd("git add .")
    wd.commit("project")
    found = Compose(wd, engine)
    yield found
    found.run("docker compose down --timeout 0")
    engine.docker("image", "rm", "--force", "shop:1.4")


def test_the_commands_of_the_guide_run_the_newest_state(compose: Compose) -> None:
    consoles = re.findall(r"```console\n(.*?)```", _PAGE, re.DOTALL)
    assert len(consoles) == 3
    for number, console in enumerate(consoles):
        compose.wd.path.with_name("catalogue").write_text(f'["state {number}"]')
        compose.write(*(["build: ."] if "compose build" in console else []))
        for line in console.splitlines():
            compose.run(line.removeprefix("$ "))
        assert compose.run(f"docker compose {_READ}") == f'["state {number}"]'
