"""The workflow that `init` writes in each kind of repository, step by step, with a real engine."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import registries
from tests.support.engine import Engine, make_python_base
from tests.support.registries import Registry
from tests.support.shapes import ON_DEFAULT_BRANCH, checkout
from tests.support.workdir import WorkDir

# The jobs' steps that are others' programs.
_ACTIONS = (
    "actions/checkout@v4",
    "actions/upload-artifact@v4",
    "astral-sh/setup-uv@v6",
    "docker/login-action@v3",
    "pantsbuild/actions/init-pants@v10",
)
_HOSTS = re.compile(
    r"ghcr\.io/(?:\$\{\{ github\.repository_owner \}\}|acme)|registry\.example\.com/data"
)
_IMAGES = {
    "workspace_uv": {"orders"},
    "workspace_dg": {"orders"},
    "nested": {"scheduler"},
    "classic_dbt": {"jaffle"},
    "build_arg": {"orders", "stock"},
    "compose": {"warehouse"},
    "dagster_cloud": {"billing"},
    "no_pyproject": {"no_pyproject"},
}
# What stands for the installation that an image without a package index cannot do.
_INSTALLED = {"classic_dbt": "ENV PYTHONPATH=/app/dagster_project"}


_STUB = """#!/bin/sh
[ "$1" = build ] && exec {} "$@"
exit 0
"""


class Runner:
    """Runs the jobs of a workflow as GitHub does, as far as ours go."""

    def __init__(self, wd: WorkDir, folder: Path, engine: Engine | None = None) -> None:
        self.wd = wd
        self.engine = engine
        self.commit = wd("git rev-parse HEAD")
        self.folder = folder
        folder.mkdir()
        # What it would install is here.
        for name in ("uv", "pants"):
            (folder / name).write_text(_STUB.format(Path(sys.executable).with_name(name)))
            (folder / name).chmod(0o755)
        if engine is not None:
            (folder / "docker").symlink_to(engine.clis[0])

    def run(self, workflow: Mapping[str, Any]) -> None:
        """Every job, every entry of its matrix, every step."""
        for job in workflow["jobs"].values():
            assert job.get("if") in (None, ON_DEFAULT_BRANCH)
            for entry in job.get("strategy", {}).get("matrix", {}).get("include", [{}]):
                values = {f"matrix.{name}": self.filled(value, {}) for name, value in entry.items()}
                for step in job["steps"]:
                    self.step(step, values)

    def step(self, step: Mapping[str, Any], values: Mapping[str, str]) -> None:
        if "uses" in step:
            assert step["uses"] in _ACTIONS
            return
        variables = {k: self.filled(v, values) for k, v in step.get("env", {}).items()}
        environment = {
            **(self.engine.environment if self.engine else {}),
            **self.wd.env,
            **variables,
            "DOCKER_CONFIG": str(self.folder.parent / "docker"),
            "GITHUB_PATH": str(self.folder.parent / "path"),
            "PATH": f"{self.folder}:{Path(sys.executable).parent}:/usr/bin:/bin",
        }
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", self.filled(step["run"], values)],
            cwd=self.wd.path, env=environment, text=True, check=False, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{step['run']}\n{done.stdout}"

    def filled(self, text: str, values: Mapping[str, str]) -> str:
        known = {"github.sha": self.commit, "vars.STATE_BUNDLER": "ours", **values}

        def value(found: re.Match[str]) -> str:
            name = found[1]
            return self.wd.env[name[8:]] if name.startswith("secrets.") else known[name]

        return re.sub(r"\$\{\{\s*([\w.]+)\s*\}\}", value, text)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with registries.running() as found:
        yield found


@pytest.mark.engine
@pytest.mark.parametrize("name", _IMAGES)
def test_every_step_of_the_workflow_runs(
    name: str, engine: Engine, registry: Registry, tmp_path: Path
) -> None:
    wd = checkout(name, tmp_path / name)
    base = make_python_base(engine)
    for file in wd.path.rglob("*Dockerfile*"):
        text = file.read_text().replace("python:3.12-slim", base)
        file.write_text(re.sub(r"(?m)^RUN .*$", _INSTALLED.get(name, ""), text))
    wd.write(".github/CODEOWNERS", "* @data\n")
    wd("state-bundler init --yes")
    wd.commit("init")
    file = wd.path / ".github/workflows/state-bundler.yml"
    workflow = yaml.safe_load(_HOSTS.sub(f"{registry.host}/data", file.read_text()))
    runner = Runner(wd, tmp_path / "programs", engine)
    runner.run(workflow)

    pushed = {image for image, tag in registry.tags if tag.endswith(runner.commit)}
    assert {image.removeprefix("data/") for image in pushed} == _IMAGES[name]


def test_every_step_runs_where_poetry_makes_the_environment(tmp_path: Path) -> None:
    wd = checkout("poetry_wheel", tmp_path / "rates")
    wd.write(".github/CODEOWNERS", "* @data\n")
    wd("state-bundler init --yes")
    wd.commit("init")
    workflow = yaml.safe_load((wd.path / ".github/workflows/state-bundler.yml").read_text())
    Runner(wd, tmp_path / "programs").run(workflow)
    assert (wd.path / ".venv/bin/python").exists()
    assert [wheel.name for wheel in (wd.path / "dist").iterdir()] == [
        "rates-0.1.0-py3-none-any.whl"
    ]


@pytest.mark.engine
@pytest.mark.parametrize(
    ("tool", "environment"),
    [("poetry.lock", "/root/.cache/pypoetry/virtualenvs/x"), ("pixi.toml", ".pixi/envs/prod")],
)
def test_every_step_runs_where_only_the_image_has_the_environment(
    tool: str, environment: str, engine: Engine, registry: Registry, tmp_path: Path
) -> None:
    wd = checkout("poetry_wheel", tmp_path / "rates")
    home = f"{environment}/bin"
    wd.write(tool, "")
    wd.write(
        "Dockerfile",
        f"FROM {make_python_base(engine)}\nENV HOME=/root\nWORKDIR /app\nCOPY . .\n"
        f'RUN mkdir -p {home} && ln -s "$(command -v python)" {home}/python\n',
    )
    wd.write(".github/CODEOWNERS", "* @data\n")
    wd("state-bundler init --yes")
    wd.commit("init")
    file = wd.path / ".github/workflows/state-bundler.yml"
    workflow = yaml.safe_load(_HOSTS.sub(f"{registry.host}/data", file.read_text()))
    (image,) = workflow["jobs"]["image"]["strategy"]["matrix"]["include"]
    named = f" --in-python {home}/python" if tool == "pixi.toml" else ""
    assert image["options"] == f"--in state-bundler/code{named}"
    Runner(wd, tmp_path / "programs", engine).run(workflow)
    assert ("data/rates", wd("git rev-parse HEAD")) in registry.tags
