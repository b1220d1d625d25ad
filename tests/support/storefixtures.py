"""Stores of every kind, empty ones, and states to push to them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bundler.artifacts.stored import open_stored
from bundler.store import Store, open_store, remote
from bundler.store.pushing import NewState
from tests.support import stores
from tests.support.bundles import make_bundle
from tests.support.faultyfront import Front, front

Files = Mapping[str, bytes]
Make = Callable[..., list[NewState]]


@pytest.fixture(params=["file", "s3", "gcs", "azure"])
def new_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], str]:
    """Makes URLs of new, empty stores."""
    if request.param == "file":
        return lambda: f"file://{tmp_path}/store-{uuid.uuid4().hex[:8]}"
    server: stores.Server = request.getfixturevalue(f"{request.param}_server")
    enter(server, monkeypatch)
    return server.url


def enter(server: stores.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    return new_url()


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


@pytest.fixture
def states(tmp_path: Path) -> Callable[..., list[NewState]]:
    def make(**keys: Files | bytes) -> list[NewState]:
        files = {
            key: {"state": value} if isinstance(value, bytes) else value
            for key, value in keys.items()
        }
        bundle = make_bundle(tmp_path / uuid.uuid4().hex, files)
        return [
            NewState(state, bundle.root / state.path, bundle.place)
            for state in bundle.manifest.states
        ]

    return make


def contents(
    store: Store, tmp_path: Path, versions: Mapping[str, str] | None = None
) -> dict[str, Files]:
    """What is pulled: by key, its files."""
    found = store.currents() if versions is None else store.all_of(versions)
    root = tmp_path / uuid.uuid4().hex
    store.known.pull((version, root / key) for key, version in found.items())
    return {
        key: {
            path.relative_to(root / key).as_posix(): path.read_bytes()
            for path in (root / key).rglob("*")
            if path.is_file()
        }
        for key in found
    }


def confirmed(store: Store) -> str | None:
    record = open_stored(f"store:{store.url}").run_record()
    assert record is not None
    return record.refresh[0].keys[0].confirmed


@pytest.fixture(params=["s3", "gcs", "azure"])
def faulty(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Front, stores.Server]]:
    """A bucket behind a front that carries out faults."""
    server: stores.Server = request.getfixturevalue(f"{request.param}_server")
    monkeypatch.setattr(remote, "_FIRST_WAIT", timedelta(milliseconds=5))
    with front(server.environment) as before:
        enter(replace(server, environment=before.environment(server.environment)), monkeypatch)
        yield before, server
