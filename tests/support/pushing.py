"""What the tests do with registries: push a base, embed on it, read it back, log in, sign.

`alone` is for the modules that import it; the other fixtures are for all.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import registry
from bundler.artifacts.image.layout import open_store
from bundler.artifacts.image.ociread import choose
from bundler.artifacts.reference import parse
from bundler.artifacts.verify import Verdict, verify
from bundler.state.bundle import Bundle
from bundler.workflows import signature
from tests.support import forked, registries
from tests.support.bundles import make_bundle, make_record
from tests.support.engine import install
from tests.support.layouts import LayoutMaker, code_layer, layer
from tests.support.registries import Registry

STATES = {
    "Catalog[eu]": {"state": b'{"products": 3}'},
    "Dbt": {"state": b"", "project/a": b"a" * 70000},
}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No waiting, and nobody's logins or proxies."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("REGISTRY_AUTH_FILE", "DOCKER_AUTH_CONFIG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with stamina.set_testing(True, attempts=5, cap=True):
        yield


@pytest.fixture(scope="module")
def debian() -> Iterator[str]:
    with registries.distribution() as host:
        yield host


@pytest.fixture
def ours() -> Iterator[Registry]:
    with registries.running() as found:
        yield found


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "state", STATES, writable={"Dbt": ("project/target",)})


@pytest.fixture
def maker(tmp_path: Path) -> LayoutMaker:
    return LayoutMaker(tmp_path / "base")


def config(**more: object) -> dict[str, object]:
    return {"WorkingDir": "/app", "User": "1000", "Labels": {"team": "shop"}, **more}


def push_base(maker: LayoutMaker, name: str, **options: object) -> str:
    """An image with the code, pushed and named; returns its digest."""
    layers = [layer({"etc": None}), code_layer()]
    maker.tag(maker.manifest(layers, config(), **options))  # type: ignore[arg-type]
    return push(maker, name)


def push(maker: LayoutMaker, name: str) -> str:
    store = open_store(maker.path)
    entry = choose(store, None)
    registry.publish(store, entry, [parse(name)])
    return entry.digest


def embed(name: str, bundle: Bundle, *sources: str, **options: object) -> Verdict:
    """Puts the bundle on the sources (on the name itself without any) and names the result."""
    request = EmbedRequest((bundle,), make_record(bundle), **options)  # type: ignore[arg-type]
    with registry.opened(name) as (target, tag):
        found = [registry.source(parse(source), target.connection) for source in sources or (name,)]
        destination = registry.RegistryDestination(target, (tag,), tuple(found))
        with destination.embed(request) as made:
            verdict = verify(made)
            verdict.raise_for_problems()
    return verdict


def verdict_of(name: str) -> Verdict:
    with registry.open_image(name) as artifact:
        return verify(artifact)


def skopeo(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [install("skopeo"), "--insecure-policy", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True)


def login(path: Path, host: str, **entry: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {host: entry}}))


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def make_key(path: Path) -> tuple[Path, Path]:
    """A key, and a file of allowed signers that allows it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    allowed = path.with_name(f"{path.name}.allowed")
    public = path.with_name(f"{path.name}.pub").read_text()
    allowed.write_text(f'{path.name}@example.org namespaces="{signature.NAMESPACE}" {public}')
    return path, allowed


def state_bundler(*arguments: str | Path, code: int = 0) -> str:
    done = forked.said("state-bundler", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr
