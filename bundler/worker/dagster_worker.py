"""Finds the state-backed components of a Dagster project, in the project's own interpreter.

Imports the standard library and dagster, nothing else. Uses only what Dagster exports publicly
(1.12 and later): ``ComponentTree.for_project`` and ``get_all_components``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

_OLDEST = (1, 12)
_STATE_DIRECTORY = ".local_defs_state"
# A shorter value occurs in a key by chance.
_SHORTEST_VALUE = 4
_MAX_DEPTH = 4
_FUNCTION_MARK = "component_instance"
_DECLARATIONS = ("defs.yaml", "defs.yml", "component.yaml")
# Attributes that shape the definitions, and not their state.
_OF_DEFINITIONS = frozenset(
    {"cli_args", "create_sensor", "defs_state", "exclude", "include_metadata", "op"}
    | {"post_processing", "select", "selector", "translation", "translation_settings"}
)


class TooOldError(Exception):
    """The project's Dagster has no public state-backed components."""


def load(command: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Finds the components once. Returns what to report, and one component per key."""
    root = Path(command["root"])
    os.chdir(root)
    # First: no file of the project takes the place of a library that Dagster imports.
    _import_installed("dagster")
    reported = _make_importable(root, command["root_module"])
    dagster = importlib.import_module("dagster")

    version = dagster.__version__
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _OLDEST:
        raise TooOldError(version)
    with _watch_environment() as read, _hear_duplicates() as heard:
        uses = _find(dagster, root, command["target"])
        tree = dagster.ComponentTree.for_project(root)
        defs = Path(tree.defs_module_path)
        places = _places(tree, defs, [use.component for use in uses if not use.location])
    by_key: dict[str, Any] = {}
    told = []
    for use in uses:
        location = use.location or places.get(id(use.component), "")
        warning = "" if use.is_listed else _warn_unlisted(use.component)
        one = _tell(use.component, read, location)
        told.append({**one, "line": use.line, "warning": warning})
        by_key.setdefault(one["key"], use.component)
    return {
        "components": told,
        "directory": str(defs / _STATE_DIRECTORY),
        "place": f"{tree.defs_module_name.replace('.', '/')}/{_STATE_DIRECTORY}",
        "version": f"dagster {version}",
        "warnings": [*reported, *heard],
    }, by_key


class _Use(NamedTuple):
    """A state-backed component. is_listed: whether ``dg utils refresh-defs-state`` finds it."""

    component: Any
    location: str = ""
    is_listed: bool = True
    line: int = 0


def _find(dagster: Any, root: Path, target: str) -> list[_Use]:
    """The state-backed components that a load of the code location uses.

    Such a load imports less than the project's component tree does (not what nothing uses) and more
    (trees that the code location makes itself). The tree is used if the code location does not load
    without its states.
    """
    try:
        return _used(dagster, root, target)
    except Exception:
        try:
            return _listed(dagster, root)
        except Exception:  # noqa: BLE001, S110  # why the load failed is what the user needs to see
            pass
        raise


def _used(dagster: Any, root: Path, target: str) -> list[_Use]:
    base = dagster.StateBackedComponent
    original = base.build_defs
    uses: dict[int, _Use] = {}
    trees: list[Any] = []

    def build_defs(component: Any, context: Any) -> Any:
        use = _Use(component, _declared_in(context), _lists(base, context), _line(context))
        uses.setdefault(id(component), use)
        trees.append(context.component_tree)
        return dagster.Definitions()

    base.build_defs = build_defs
    try:
        trees += [
            getattr(location, "component_tree", None)
            for location in _load_all(dagster, root, target)
        ]
    finally:
        base.build_defs = original
    # The loaded trees know what overrides `build_defs`.
    for tree in {id(tree): tree for tree in trees if tree is not None}.values():
        for component in tree.get_all_components(of_type=base):
            uses.setdefault(id(component), _Use(component))
    return list(uses.values())


def _load_all(dagster: Any, root: Path, target: str) -> list[Any]:
    """The code locations of a module, made as a code server makes them."""
    if not _exists(target):
        return [dagster.load_from_defs_folder(path_within_project=root)]
    values = vars(importlib.import_module(target)).values()
    made = [value() for value in values if type(value).__name__ == "LazyDefinitions"]
    return [*made, *(value for value in values if isinstance(value, dagster.Definitions))]


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            return False
        raise


def _declared_in(context: Any) -> str:
    path = Path(context.path)
    files = (path, *(path / name for name in _DECLARATIONS))
    return next((os.path.relpath(file) for file in files if file.is_file()), "")


def _line(context: Any) -> int:
    """The line in a YAML file that declares the component; 0 if unknown."""
    tree = getattr(getattr(context, "component_decl", None), "source_tree", None)
    position = getattr(getattr(tree, "source_position_tree", None), "position", None)
    line = getattr(getattr(position, "start", None), "line", 0)
    return line if isinstance(line, int) else 0


def _lists(base: type, context: Any) -> bool:
    """Whether Dagster's own list has the component: it depends on the declared type."""
    kind = getattr(getattr(context, "component_decl", None), "component_type", base)
    return isinstance(kind, type) and issubclass(kind, base)


def _listed(dagster: Any, root: Path) -> list[_Use]:
    tree = dagster.ComponentTree.for_project(root)
    listed = tree.get_all_components(of_type=dagster.StateBackedComponent)
    defs = Path(tree.defs_module_path)
    unlisted = _unlisted(dagster, tree, defs, listed)
    return [*map(_Use, listed), *(_Use(component, is_listed=False) for component in unlisted)]


def write(component: Any, state_path: str) -> Any:
    """Has a component write its state; what it returns may be awaitable."""
    return component.write_state_to_path(Path(state_path))


def _make_importable(root: Path, root_module: str) -> list[str]:
    """Makes a project importable that is not installed, from where its package may be."""
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


def _import_installed(name: str) -> None:
    """Imports a package if it is installed; else it may be in the project's folder."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise


def _unlisted(dagster: Any, tree: Any, defs: Path, listed: list[Any]) -> Iterator[Any]:
    """State-backed components that the tree does not list by their type, though a load uses them.

    A function under ``@component_instance`` whose return annotation is missing, or is a string
    (``from __future__ import annotations``), has no type before it is called. Everything is only
    loaded if there are such functions.
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

    Only files that name a component's class are searched: they are loaded already.
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
        f"{component.defs_state_config.key} is not in Dagster's own list of components (it is "
        "created by a function without a usable return annotation, or by another component), so "
        "`dg utils refresh-defs-state` skips it; it is refreshed here."
    )


def _tell(component: Any, read: set[str], location: str) -> dict[str, Any]:
    config = component.defs_state_config
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(component).__mro__]
    texts = set(_texts(_attributes(component), _MAX_DEPTH))
    values = {name: os.environ.get(name, "") for name in read}
    usable = {name: value for name, value in values.items() if len(value) >= _SHORTEST_VALUE}
    declared = _text(Path(location)) if location else ""
    return {
        "key": config.key,
        "management_type": config.management_type.value,
        "refresh_if_dev": config.refresh_if_dev,
        "kind": names[0],
        "ancestors": names[1:],
        "made_of": _made_of(component),
        "location": location,
        "defers_in": _defers_in(component),
        "key_variables": sorted(name for name, value in usable.items() if value in config.key),
        "environment_variables": sorted(
            name for name, value in usable.items() if any(value in text for text in texts)
        ),
        "unset_variables": sorted(
            name
            for name, value in values.items()
            if not value and re.search(rf"\b{re.escape(name)}\b", declared)
        ),
    }


def _defers_in(component: Any) -> str:
    """Where a dbt project in the state looks for the manifest that it defers to: its
    `state_path`, below the key directory; empty if it has none."""
    settings = _attributes(_attributes(component).get("project")).get("args")
    state_path = _attributes(settings).get("state_path")
    if not (state_path and isinstance(state_path, (str, Path))):
        return ""
    return os.path.normpath(os.path.join("project", state_path))


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of any object; none if it has no list of them."""
    try:
        return dict(vars(value))
    except Exception:  # noqa: BLE001  # an object may refuse anything
        return {}


def _texts(value: Any, depth: int) -> Iterator[str]:
    """The strings in a component's attributes, including nested ones.

    Some of Dagster's records are named tuples that cannot be iterated: only plain tuples are.
    """
    if isinstance(value, str):
        yield value
    elif depth:
        if type(value) in (list, tuple, set, frozenset):
            items = list(value)
        else:
            members = value if type(value) is dict else _attributes(value) or _fields(value)
            items = list(members.values())
        for item in items:
            yield from _texts(item, depth - 1)


def _made_of(component: Any) -> str:
    """A digest of what the state is made of: equal for components that may share one.

    Without attributes that only shape the definitions, and those that cannot be compared.
    """
    known = {
        name: value
        for name, value in (_fields(component) or _attributes(component)).items()
        if not name.startswith("_") and name not in _OF_DEFINITIONS
    }
    kind = type(component)
    plain = [f"{kind.__module__}.{kind.__qualname__}", _plain(known, _MAX_DEPTH)]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _fields(value: Any) -> dict[str, Any]:
    """The declared fields of a dataclass, a pydantic model or a named tuple; none of any other
    object."""
    kind = type(value)
    names = getattr(kind, "__dataclass_fields__", None) or getattr(kind, "model_fields", None)
    names = names or (isinstance(value, tuple) and getattr(kind, "_fields", None)) or ()
    return {name: getattr(value, name, None) for name in names}


def _plain(value: Any, depth: int) -> Any:
    """A value in JSON's types; for one that cannot be compared, only its type."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.path.abspath(value)
    if isinstance(value, Enum):
        return value.name
    if depth and type(value) is dict:
        return {str(name): _plain(item, depth - 1) for name, item in value.items()}
    if depth and type(value) in (list, tuple):
        return [_plain(item, depth - 1) for item in value]
    if depth and type(value) in (set, frozenset):
        return sorted(json.dumps(_plain(item, depth - 1), sort_keys=True) for item in value)
    fields = _fields(value) if depth else {}
    return [type(value).__qualname__, _plain(fields, depth) if fields else None]


@contextmanager
def _hear_duplicates() -> Iterator[list[str]]:
    """Collects Dagster's warnings about keys that components share; shows all others."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as heard:
        try:
            yield texts
        finally:
            found = list(heard)
    for warning in found:
        if warning.category.__name__ == "DuplicateDefsStateKeyWarning":
            texts.append(" ".join(str(warning.message).split()))
        else:
            warnings.showwarning(
                warning.message, warning.category, warning.filename, warning.lineno
            )


@contextmanager
def _watch_environment() -> Iterator[set[str]]:
    """Collects the names of the environment variables that are read inside the block."""
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
