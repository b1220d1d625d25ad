"""Images are loaded in themselves, without network: ``diff --definitions``, ``plan --in``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.image.engine.connection import Docker
from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.project.options import Inside
from bundler.project.projects import open_project
from bundler.refresh.definitions import describe_with
from bundler.state.definitions import compare
from bundler.state.manifest import RunRecord
from bundler.state.statedir import StateDir
from tests.support.embedding import embed_image
from tests.support.engine import Engine, make_environment_image
from tests.support.planned import AFTER, BEFORE, KEY, key_directory, make
from tests.support.statedirs import publish

pytestmark = pytest.mark.engine

PLACE = "planned/defs/.local_defs_state"
_DOCKERFILE = """\
FROM {base}
COPY pyproject.toml /app/
COPY src /app/src
USER 1000
ENV PYTHONPATH=/app/src HOME=/tmp
WORKDIR /app
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path)


@pytest.fixture
def code_image(engine: Engine, root: Path) -> str:
    return _build(engine, root, "sbt/planned:1")


def _build(engine: Engine, root: Path, name: str, **instructions: str) -> str:
    dockerfile = _DOCKERFILE.format(base=make_environment_image(engine, "store"))
    more = "".join(f"{word} {rest}\n" for word, rest in instructions.items())
    (root / "Dockerfile").write_text(dockerfile + more)
    engine.docker("build", "--quiet", "--tag", name, str(root))
    return name


@pytest.fixture(autouse=True)
def _engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in engine.environment.items():
        if name.startswith("DOCKER_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("STATE_BUNDLER_DOCKER", engine.clis[0])


def _shipped(engine: Engine, image: str, folder: Path, state: Mapping[str, Any]) -> str:
    directory = StateDir(folder / "state", PLACE)
    bundle = publish(directory, {KEY: {"state": json.dumps(state)}}).bundle
    docker = Docker(engine.clis[0], (), engine.environment)
    return embed_image(docker.connect(), image, [bundle], RunRecord()).image_id


def test_two_images_with_other_code_and_other_state(
    engine: Engine, root: Path, code_image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = _shipped(engine, code_image, tmp_path / "one", BEFORE)
    feed = root / "src/planned/feed.py"
    feed.write_text(feed.read_text().replace("blocking=True", "blocking=False"))
    other = _shipped(engine, _build(engine, root, "sbt/planned:2"), tmp_path / "other", AFTER)
    names = [f"docker-daemon:{image}" for image in (one, other)]
    assert run(cli, ["diff", *names, "--definitions", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)["definitions"]
    changes = {(it["kind"], it["name"]): it for it in found["changes"]}
    assert changes["assets", "returns"]["change"] == "removed"
    (field,) = changes["asset checks", "orders:fresh"]["fields"]
    assert (field["name"], field["before"], field["after"]) == ("blocking", True, False)


def test_given_states_are_loaded_inside_an_image(
    root: Path, code_image: str, tmp_path: Path
) -> None:
    module = root / "src/planned/definitions.py"
    module.write_text("raise SystemExit('the code here is not to be loaded')\n")
    states = [
        {KEY: key_directory(tmp_path / name, state)}
        for name, state in (("old", BEFORE), ("new", AFTER))
    ]
    before, after = describe_with(open_project(root), states, Inside(code_image))
    assert (before.error, after.error) == (None, None)
    found = compare(before, after)
    assert found.counted("assets", "added") == found.counted("assets", "removed") == 1
    assert found.counted("assets", "changed") == 2


def test_a_plan_inside_an_image(
    engine: Engine, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The project here is what describes it: fetched and loaded is with the code in the image."""
    (root / "src/feed").mkdir()
    (root / "src/feed/main.json").write_text(json.dumps(AFTER))
    image = _build(engine, root, "sbt/planned:3", ENV="FEED=/app/src/feed")
    one = _shipped(engine, image, tmp_path / "one", BEFORE)
    here = tmp_path / "here"
    (here / "src/planned/defs").mkdir(parents=True)
    shutil.copy(root / "pyproject.toml", here)
    plan = ["plan", f"docker-daemon:{one}", "--in", image, "--project", str(here)]
    assert run(cli, [*plan, "--format", "json"]) == 1
    (baseline,) = json.loads(capsys.readouterr().out)["baselines"]
    changes = {(it["kind"], it["name"]): it["change"] for it in baseline["definitions"]["changes"]}
    assert changes["assets", "returns"] == "removed"
    assert changes["schedules", "hourly_schedule"] == "added"
    assert not (here / "src/planned/defs/.local_defs_state").exists()
    # What is made of it is loaded in itself, and defines what the plan says.
    file = tmp_path / "plan.bin"
    assert run(cli, [*plan, "--out", str(file)]) == 1
    update = ["update", f"docker-daemon:{one}", "--tag", "sbt/planned:4", "--no-guard"]
    capsys.readouterr()
    assert run(cli, [*update, "--plan", str(file), "--project", str(here)]) == 0
    assert ", as planned" in capsys.readouterr().out
