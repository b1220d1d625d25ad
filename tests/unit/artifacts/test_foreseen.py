"""A look at the engine before a build refuses what is certain to fail, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.image.engine.baking import Baking
from bundler.artifacts.image.engine.building import foresee
from bundler.artifacts.image.engine.connection import Docker, Engine
from bundler.artifacts.image.engine.contexts import is_engine_own_builder
from bundler.artifacts.image.engine.dockerbuild import BuildInput
from bundler.artifacts.image.engine.foreseen import Foreseer, WantedPlaces
from bundler.artifacts.image.image import LABEL_STATES
from bundler.errors import BundlerError, ConfigurationError, ToolFailed, VerificationFailed
from bundler.listener import SILENT
from tests.support.pex_projects import write


class _Docker:
    environment: dict[str, str] = {"DOCKER_CONFIG": "/nowhere"}  # noqa: RUF012


class _Engine:
    docker = _Docker()

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def image(self, _: str) -> dict[str, Any]:
        return {"Id": "sha256:1", "Config": {"User": "app", **self.config}}

    def has_image(self, _: str) -> bool:
        return False


_WANTED = WantedPlaces(["shop/defs/.local_defs_state"], "/data/state")


@pytest.mark.parametrize(
    ("lines", "words", "config", "is_refused"),
    [
        ("WORKDIR /app", "", {}, True),
        ("ENV H=/app\nWORKDIR $H", "", {}, True),
        ("WORKDIR ${H:-/x}", "", {"Env": ["H=/app"]}, True),
        ("ARG H=/app\nWORKDIR $H", "", {}, False),
        ("ARG H\nENV PYTHONPATH=${H:-/app}", "", {}, False),
        ("ARG U\nUSER $U", "", {}, False),
        ("WORKDIR /app", "", {"OnBuild": ["COPY . /app"]}, False),
        ("WORKDIR /app", "--pull", {}, False),
        ("WORKDIR /app", "--pull=true", {}, False),
        ("WORKDIR /app", "--build-context base=docker-image://x", {}, False),
        ("WORKDIR /app", "--builder other", {}, False),
        ("WORKDIR /app", "--platform linux/arm64", {}, False),
        ("COPY . /app", "", {}, False),
        ("COPY . /app\nVOLUME /data", "", {}, True),
        ('COPY . /app\nENV D=/data\nVOLUME "$D"', "", {}, True),
        ("COPY . /app\nARG D=/data\nVOLUME $D", "", {}, False),
        ("COPY . /app", "", {"Labels": {LABEL_STATES: "not JSON"}}, False),
        ("COPY . /app", "", {"Labels": {LABEL_STATES: '{"format": 99}'}}, False),
    ],
)
def test_only_what_is_certain_is_refused(
    lines: str,
    words: str,
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_refused: bool,
) -> None:
    def problems(*_: object) -> Iterator[ConfigurationError]:
        yield ConfigurationError("It is nowhere.", hint="Put it somewhere.")

    monkeypatch.setattr(Foreseer, "_problems", problems)
    root = write(tmp_path, {"Dockerfile": f"FROM base\n{lines}\n"})
    given = BuildInput(parse([*words.split(), "-t", "shop:1", str(root)]))
    engine = cast("Engine", _Engine(config))
    if is_refused:
        with pytest.raises(ConfigurationError):
            foresee(given, engine, _WANTED, SILENT)
    else:
        foresee(given, engine, _WANTED, SILENT)


@pytest.mark.parametrize(
    ("current", "environment", "expected"),
    [
        (None, {}, True),
        ('{"Key": "unix:///x", "Name": "", "Global": false}', {}, True),
        ('{"Key": "unix:///x", "Name": "default"}', {}, True),
        ('{"Key": "unix:///x", "Name": "elsewhere"}', {}, False),
        ("not JSON", {}, False),
        (None, {"BUILDX_BUILDER": "elsewhere"}, False),
        ('{"Name": "elsewhere"}', {"BUILDX_BUILDER": "default"}, True),
    ],
)
def test_a_builder_that_was_chosen_is_seen(
    current: str | None, environment: dict[str, str], tmp_path: Path, *, expected: bool
) -> None:
    if current is not None:
        write(tmp_path, {"buildx/current": current})
    for names in ({"DOCKER_CONFIG": str(tmp_path)}, {"BUILDX_CONFIG": str(tmp_path / "buildx")}):
        assert is_engine_own_builder({"HOME": "/nowhere", **names, **environment}) is expected


@pytest.mark.parametrize("error", [ToolFailed("refused"), VerificationFailed("altered")])
def test_an_image_that_cannot_be_looked_at_is_no_reason_to_refuse(
    error: BundlerError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def problems(*_: object) -> Iterator[ConfigurationError]:
        raise error
        yield

    monkeypatch.setattr(Foreseer, "_problems", problems)
    engine = cast("Engine", _Engine({}))
    Foreseer(engine, "FROM base\nUSER app\n", tag="shop:1").check(_WANTED, SILENT)


@pytest.mark.parametrize(
    ("more", "is_refused"),
    [({}, True), ({"pull": True}, False), ({"contexts": {"base": "target:base"}}, False)],
)
def test_so_is_what_bake_builds(
    more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_refused: bool
) -> None:
    def problems(*_: object) -> Iterator[ConfigurationError]:
        yield ConfigurationError("It is nowhere.", hint="Put it somewhere.")

    monkeypatch.setattr(Foreseer, "_problems", problems)
    write(tmp_path, {"Dockerfile": "FROM base\nWORKDIR /app\n"})
    target = {"context": str(tmp_path), "tags": ["shop:1"], **more}
    given = Baking(Docker(), {"target": {"app": target}}, ("app",), ()).given("app")
    engine = cast("Engine", _Engine({}))
    with pytest.raises(ConfigurationError) if is_refused else nullcontext():
        foresee(given, engine, _WANTED, SILENT)
