"""Finds the state-backed components of a Dagster project, in the project's own interpreter.

Imports the standard library and dagster, nothing else. Uses only what Dagster exports publicly
(1.12 and later): ``ComponentTree.for_project`` and ``get_all_components``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OLDEST = (1, 12)
_STATE_DIRECTORY = ".local_defs_state"
# A shorter value stands in a key by chance.
_SHORTEST_VALUE = 4
_MAX_DEPTH = 4
_FUNCTION_MARK = "component_instance"
_DECLARATIONS = ("defs.yaml", "component.yaml")


class TooOldError(Exception):
    """The project's Dagster has no public state-backed components."""


def load(command: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loads the component tree once. Returns what there is to tell, and a component a key."""
    root = Path(command["root"])
    os.chdir(root)
    warnings = _make_importable(root, command["root_module"])
    dagster = importlib.import_module("dagster")

    version = dagster.__version__
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _OLDEST:
        raise TooOldError(version)
    with _watch_environment() as read:
        tree = dagster.ComponentTree.for_project(root)
        components = tree.get_all_components(of_type=dagster.StateBackedComponent)
        defs = Path(tree.defs_module_path)
        unlisted = list(_unlisted(dagster, tree, defs, components))
        places = _places(tree, defs, [*components, *unlisted])
    by_key: dict[str, Any] = {}
    told = []
    for component in (*components, *unlisted):
        told.append({**_tell(component, read), "location": places.get(id(component), "")})
        by_key.setdefault(told[-1]["key"], component)
    warnings += [_warn_unlisted(component) for component in unlisted]
    return {
        "components": told,
        "directory": str(defs / _STATE_DIRECTORY),
        "place": f"{tree.defs_module_name.replace('.', '/')}/{_STATE_DIRECTORY}",
        "version": f"dagster {version}",
        "warnings": warnings,
    }, by_key


def write(component: Any, state_path: str) -> Any:
    """Has a component write its state; what it returns may be awaitable."""
    return component.write_state_to_path(Path(state_path))


def _make_importable(root: Path, root_module: str) -> list[str]:
    """Lets a project load that is not installed, from the places where its package may lie."""
    sys.path.insert(0, str(root))
    if not root_module or importlib.util.find_spec(root_module):
        return []
    source = root / "src"
    if not (source / root_module).is_dir():
        return []
    sys.path.insert(0, str(source))
    return [
        f"The package {root_module} is not installed in {sys.executable}; it is used from {source}."
    ]


def _unlisted(dagster: Any, tree: Any, defs: Path, listed: list[Any]) -> Iterator[Any]:
    """State-backed components that the tree does not tell by their type, though a load uses them.

    A function under ``@component_instance`` whose return annotation is missing, or is a string
    (``from __future__ import annotations``), has no type before it is called. Everything is only
    loaded where such functions exist at all.
    """
    if not any(_FUNCTION_MARK in _text(path) for path in _python_files(defs)):
        return
    seen = {id(component) for component in listed}
    pending = list(tree.get_all_components(of_type=dagster.Component))
    while pending:
        component = pending.pop(0)
        if id(component) in seen:
            continue
        seen.add(id(component))
        if isinstance(component, dagster.StateBackedComponent):
            yield component
        pending += _inside(component)


def _places(tree: Any, defs: Path, components: list[Any]) -> dict[int, str]:
    """The file that declares each component, relative to the project, by the component's id.

    Only files that name a component's class are asked for: those are loaded already.
    """
    names = {type(component).__name__ for component in components}
    places: dict[int, str] = {}
    for file in sorted(path for name in _DECLARATIONS for path in defs.rglob(name)):
        if not any(name in _text(file) for name in names):
            continue
        try:
            found = tree.load_component(file.parent)
        except Exception:  # noqa: BLE001, S112  # a place is for people: what fails says so elsewhere
            continue
        for component in (found, *_inside(found)):
            places.setdefault(id(component), os.path.relpath(file))
    return places


def _inside(component: Any) -> list[Any]:
    inner = getattr(component, "components", ())
    return list(inner.values() if isinstance(inner, dict) else inner)


def _python_files(directory: Path) -> Iterator[Path]:
    for parent, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if not name.startswith((".", "__"))]
        yield from (Path(parent, name) for name in files if name.endswith(".py"))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _warn_unlisted(component: Any) -> str:
    return (
        f"{component.defs_state_config.key} is made by a function without a return annotation that "
        "can be evaluated, so `dg utils refresh-defs-state` passes it over; it is refreshed here."
    )


def _tell(component: Any, read: set[str]) -> dict[str, Any]:
    config = component.defs_state_config
    kind = type(component)
    texts = set(_texts(vars(component), _MAX_DEPTH))
    values = {name: os.environ.get(name, "") for name in read}
    usable = {name: value for name, value in values.items() if len(value) >= _SHORTEST_VALUE}
    return {
        "key": config.key,
        "management_type": config.management_type.value,
        "refresh_if_dev": config.refresh_if_dev,
        "kind": f"{kind.__module__}.{kind.__qualname__}",
        "key_variables": sorted(name for name, value in usable.items() if value in config.key),
        "environment_variables": sorted(
            name for name, value in usable.items() if any(value in text for text in texts)
        ),
    }


def _texts(value: Any, depth: int) -> Iterator[str]:
    """The strings that a component is made of, its attributes' attributes included."""
    if isinstance(value, str):
        yield value
    elif depth:
        if isinstance(value, dict):
            items = list(value.values())
        elif isinstance(value, (list, tuple, set)):
            items = list(value)
        else:
            items = list(getattr(value, "__dict__", {}).values())
        for item in items:
            yield from _texts(item, depth - 1)


@contextmanager
def _watch_environment() -> Iterator[set[str]]:
    """Collects the names of the environment variables that are read meanwhile."""
    read: set[str] = set()
    kind = type(os.environ)
    original = kind.__getitem__

    def watched(self: Any, name: str) -> str:
        if isinstance(name, str):
            read.add(name)
        return original(self, name)

    kind.__getitem__ = watched  # type: ignore[method-assign]  # put back below
    try:
        yield read
    finally:
        kind.__getitem__ = original  # type: ignore[method-assign]  # as it was
