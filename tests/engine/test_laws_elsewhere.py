"""The laws of `test_laws` for images in a registry and in a Docker engine."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import registry
from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.layout import open_store
from bundler.artifacts.image.ociread import choose
from bundler.artifacts.reference import parse
from bundler.state.bundle import Bundle
from bundler.state.manifest import RunRecord
from tests.pex.test_laws import Embed, States, all_states, holds
from tests.support import registries
from tests.support.embedding import embed_image
from tests.support.engine import Engine
from tests.support.layouts import LayoutMaker, code_layer

pytestmark = pytest.mark.engine(offline=True)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def into_registry(tmp_path: Path) -> Iterator[Embed]:
    maker = LayoutMaker(tmp_path / "image")
    maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}))
    with registries.running() as server:
        base = f"{server.host}/shop:base"
        store = open_store(maker.path)
        registry.publish(store, choose(store, None), [parse(base)])

        def embed(bundle: Bundle, record: RunRecord, _: Path) -> str:
            with registry.opened(f"{server.host}/shop:1") as (target, reference):
                source = registry.source(parse(base), target.connection)
                to = registry.RegistryDestination(target, (reference,), (source,))
                with to.embed(EmbedRequest((bundle,), record)):
                    pass
            return f"docker://{server.host}/shop:1"

        yield embed


@pytest.fixture
def into_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Embed]:
    code = io.BytesIO()
    with tarfile.open(fileobj=code, mode="w") as archive:
        for name in ("app/shop/__init__.py", "app/shop/defs/__init__.py"):
            archive.addfile(tarfile.TarInfo(name))
    change = ("--change", "WORKDIR /app")
    made = [engine.docker("import", *change, "-", stdin=code.getvalue()).stdout.decode().strip()]
    for name in ("DOCKER_HOST", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, engine.environment[name])
    docker = Docker(engine.clis[0], (), engine.environment)

    def embed(bundle: Bundle, record: RunRecord, _: Path) -> str:
        made.append(embed_image(docker.connect(), made[0], [bundle], record).image_id)
        return f"docker-daemon:{made[-1]}"

    yield embed
    for image in reversed(made):
        engine.docker("image", "rm", "--force", image, check=False)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(states=all_states)
def test_in_a_registry(into_registry: Embed, states: States) -> None:
    holds(into_registry, states)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(states=all_states)
def test_in_an_engine(into_engine: Embed, states: States) -> None:
    holds(into_engine, states)
