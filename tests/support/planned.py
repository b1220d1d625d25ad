"""The project ``tests/projects/planned``, whose states say everything about its definitions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.environments import ROOT, python_of

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
    return python_of("dagster")
