"""The project ``tests/projects/planned``, whose states say everything about its definitions."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bundler.artifacts.definitions import Request, describe
from bundler.artifacts.running import Runner
from bundler.refresh import definitions
from bundler.state.definitions import Definitions
from tests.support.environments import DAGSTER_ALONE, ROOT, python_of

# In an interpreter that has Dagster this takes it from there: a PEX with it is 45 MB to unpack.
SMALL_PEX = ("--inherit-path=fallback",)
PROJECT = ROOT / "tests" / "projects" / "planned"
KEY = "Feed[main]"
BEFORE: Mapping[str, Any] = {
    "assets": {
        "orders": {
            "group": "sales",
            "owners": ["team:shop"],
            "version": "1",
            "kinds": ["table"],
            "tags": {"tier": "gold"},
            "partitions": ["a", "b"],
            "automation": "eager",
        },
        "customers": {},
        "revenue": {"deps": ["orders", "customers"]},
        "returns": {},
    },
    "checks": ["orders:fresh", "customers:fresh"],
    "jobs": {"nightly": ["revenue"], "weekly": ["returns"]},
    "schedules": {"nightly": "0 1 * * *", "weekly": "0 1 * * 1"},
    "sensors": {"automation": ["orders"]},
    "resources": ["warehouse"],
}
AFTER: Mapping[str, Any] = {
    "assets": {
        "orders": {
            "group": "finance",
            "owners": ["team:finance"],
            "version": "2",
            "kinds": ["view"],
            "tags": {"tier": "silver"},
            "partitions": ["a", "b", "c"],
            "automation": "on_missing",
        },
        "customers": {},
        "revenue": {"deps": ["orders", "visits"]},
        "visits": {},
    },
    "checks": ["orders:fresh", "orders:complete"],
    "jobs": {"nightly": ["revenue", "orders"], "hourly": ["visits"]},
    "schedules": {"nightly": "0 2 * * *", "hourly": "0 * * * *"},
    "sensors": {"automation": ["customers"], "more": ["orders"]},
    "resources": ["lake"],
}


def make(folder: Path) -> Path:
    """A copy of the project; its feed is in ``feed`` next to it, and has the state `BEFORE`."""
    root = folder / "planned"
    shutil.copytree(PROJECT, root, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "feed").mkdir()
    feed(folder, BEFORE)
    return root


def feed(folder: Path, state: Mapping[str, Any], name: str = "main") -> None:
    """What the next refresh fetches."""
    (folder / "feed" / f"{name}.json").write_text(json.dumps(state))


def key_directory(folder: Path, state: Mapping[str, Any]) -> Path:
    """A key directory with this state."""
    folder.mkdir(parents=True)
    (folder / "state").write_text(json.dumps(state))
    return folder


def python() -> Path:
    return python_of(DAGSTER_ALONE)


_LOADED: dict[str, Definitions] = {}


@pytest.fixture
def loads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project is loaded by Dagster once with the same code, states and variables: each load takes
    seconds, and every test starts from the same two states."""

    def once(
        run: Runner,
        request: Request,
        environment: Mapping[str, str],
        name: str,
        redact: Callable[[str], str],
    ) -> Definitions:
        key = _key(request, environment)
        if key not in _LOADED:
            _LOADED[key] = describe(run, request, environment, name, redact)
        return _LOADED[key]

    monkeypatch.setattr(definitions, "describe", once)


def _key(request: Request, environment: Mapping[str, str]) -> str:
    root, folder = Path(request.root), Path(request.folder or "")
    assert root.is_absolute()
    assert folder.is_absolute()
    variables = {
        name: value.replace(str(root.parent), "")
        for name, value in environment.items()
        if name != "PYTEST_CURRENT_TEST"
    }
    asked = msgspec.structs.replace(request, root="", folder=None)
    files = [
        (path.relative_to(top).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for top in (root, folder)
        for path in sorted(top.rglob("*"))
        if path.is_file() and not path.name.startswith("@")
    ]
    return repr((asked, sorted(variables.items()), files))
