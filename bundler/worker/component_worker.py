"""Finds components of `bundler.component` by name, in the project's own interpreter."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any


class NoComponentError(Exception):
    """A name does not refer to anything that can write a state."""


def load(command: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Imports every component that the configuration names."""
    root = Path(command["root"])
    os.chdir(root)
    # An installed package precedes sources with the same name.
    sys.path += [str(path) for path in (root / "src", root) if path.is_dir()]
    by_key: dict[str, Any] = {}
    told = []
    for entry in command["entries"]:
        for component in _named(entry["component"]):
            description = _tell(component, entry)
            told.append(description)
            by_key.setdefault(description["key"], component)
    return {
        "components": told,
        "directory": command["directory"],
        "place": command["place"],
        "version": f"Python {sys.version.split()[0]}",
        "warnings": [],
    }, by_key


def write(component: Any, state_path: str) -> Any:
    """Has a component write its state; what it returns may be awaitable."""
    return component.write_state_to_path(Path(state_path))


def _named(name: str) -> list[Any]:
    """What a name refers to: a component, a component class, or a function that makes some."""
    module_name, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise NoComponentError(f"{module_name} has no {attribute}.")
        found = getattr(found, part)
    if not hasattr(found, "write_state_to_path") or isinstance(found, type):
        found = found()
    components = list(found) if isinstance(found, (list, tuple)) else [found]
    for component in components:
        if not hasattr(component, "write_state_to_path"):
            raise NoComponentError(f"{name} is not a state-backed component.")
    return components


def _tell(component: Any, entry: dict[str, Any]) -> dict[str, Any]:
    config = component.defs_state_config
    module = type(component).__module__
    kind = f"{module}.{type(component).__qualname__}"
    return {
        "key": entry["key"] or config.key,
        "management_type": getattr(config.management_type, "value", config.management_type),
        "refresh_if_dev": config.refresh_if_dev,
        "kind": kind,
        "location": entry["component"],
        "made_of": repr([kind, getattr(sys.modules.get(module), "__file__", None)]),
    }
