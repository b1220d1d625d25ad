"""Describes what a Dagster code location defines, without network and without a refresh.

Runs in the interpreter that has the project, as a program on stdin, so that nothing of ours needs
to be installed there. The program is `values.py`, `configuration.py`, `describing.py`, this file,
and a call of `answer` with a request:

    target    ``MODULE``, or ``defs-of:PACKAGE`` for a project without a module of definitions, or
              ``near:PATH`` for the code location whose defs module has a path that ends so
    root      the project's directory; empty for the current one
    package   the project's package, which is imported from ``src`` if it is not installed
    folder    the directory that the states are in; null to use those that the program finds
    states    the name of each key's directory in that folder
    salt      for the digests of values that may be secret

The answer is one line on stdout: a marker, then JSON. `bundler.state.definitions` reads it.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

from bundler.worker.describing import check_name, described
from bundler.worker.values import key_of, leave_out, salt_digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

AUTOLOAD = "defs-of"
NEAR = "near"
MARKER = "\x1estate-bundler-definitions "
_MOST_TEXT = 100_000
# As often as usual takes a quarter of the time, and frees a fiftieth of the memory.
_LOOK_FOR_CYCLES_AFTER = 100_000  # objects more
_STATE_DIRECTORY = ".local_defs_state"
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto")


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Loads the code location once and describes it."""
    told: dict[str, Any] = {"version": "", "definitions": {}, "keys": {}, "states": {}}
    gc.set_threshold(_LOOK_FOR_CYCLES_AFTER)
    sys.addaudithook(_refuse_network)
    salt_digests(request["salt"])
    leave_out(request["folder"] or os.getcwd())
    try:
        _make_importable(request["root"], request["package"])
        dagster = importlib.import_module("dagster")
        told["version"] = dagster.__version__
        _give_states(dagster, _states_of(request), told)
        for location in _locations(dagster, request["target"]):
            for kind, found in described(location).items():
                _add(told["definitions"].setdefault(kind, {}), found, location)
    except Exception as error:  # noqa: BLE001  # whatever the project raises is the answer
        first = _first(error)
        told["error"] = f"{type(first).__name__}: {first}"[:_MOST_TEXT]
    return told


def _add(known: dict[str, Any], found: dict[str, Any], location: Any) -> None:
    """Another repository of the module may use the same name for something else."""
    for name, fields in found.items():
        is_other = known.get(name, fields) != fields
        known[f"{name} of {getattr(location, 'name', 'others')}" if is_other else name] = fields


def _first(error: BaseException) -> BaseException:
    """The cause of Dagster's own exceptions, which only describe where in the tree it happened."""
    seen = {id(error)}
    while True:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None or id(cause) in seen:
            return error
        seen.add(id(cause))
        error = cause


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _NETWORK:
        return
    family = getattr(arguments[0], "family", None)
    if getattr(family, "name", "") != "AF_UNIX":
        raise ConnectionRefusedError("definitions are loaded without network")


def _make_importable(root: str, package: str) -> None:
    """As for discovery: the project's directory, and its ``src`` if it is not installed."""
    if root:
        os.chdir(root)
    sys.path.insert(0, os.getcwd())
    source = os.path.abspath("src")
    if package and not _exists(package) and os.path.isdir(source):
        sys.path.insert(0, source)


# --- states -----------------------------------------------------------------------------------


def _states_of(request: dict[str, Any]) -> dict[str, str] | None:
    """The path of each key's state; None for those that the program finds itself."""
    folder = request["folder"]
    if folder is None:
        return None
    return {key: os.path.join(folder, name, "state") for key, name in request["states"].items()}


def _give_states(dagster: Any, states: dict[str, str] | None, told: dict[str, Any]) -> None:
    """Gives each component its state, and records which assets it makes."""
    base = getattr(dagster, "StateBackedComponent", None)
    if base is None:
        return
    original = base.build_defs

    def build_defs(component: Any, context: Any) -> Any:
        config = component.defs_state_config
        leave_out(context.project_root)
        is_local = config.management_type.value == "LOCAL_FILESYSTEM"
        if states is not None:
            path = states.get(config.key)
        else:
            path = _state_in_program(config.key, context.project_root)
        told["states"][config.key] = path is not None if is_local or path else None
        if states is None and is_local:
            made = original(component, context)
        elif path is not None:
            made = component.build_defs_from_state(context, state_path=Path(path))
        else:
            made = _without_state(dagster, component, context, is_local=is_local)
        for kind, names in _names_in(made).items():
            told["keys"].setdefault(config.key, {}).setdefault(kind, []).extend(names)
        return made

    base.build_defs = build_defs


def _without_state(dagster: Any, component: Any, context: Any, *, is_local: bool) -> Any:
    """The definitions of a component before its first refresh; none if it requires a state."""
    if is_local:
        try:
            return component.build_defs_from_state(context, state_path=None)
        except Exception:  # noqa: BLE001, S110  # a component may raise anything without its state
            pass
    return dagster.Definitions()


def _state_in_program(key: str, project_root: Any) -> str | None:
    """Where the program has a key's state, according to the manifest next to it."""
    paths = importlib.import_module("dagster.components.utils.project_paths")
    directory = paths.get_defs_module_path_for_project(project_root) / _STATE_DIRECTORY
    leave_out(directory)
    try:
        manifest = json.loads((directory / "@manifest.json").read_bytes())
    except (OSError, ValueError):
        plain = directory / re.sub("[^A-Za-z0-9._-]", "__", key) / "state"
        return str(plain) if plain.exists() else None
    for state in manifest["predicate"]["contents"]["states"]:
        if state["key"] == key:
            return str(directory / state["path"] / "state")
    return None


def _names_in(made: Any) -> dict[str, list[str]]:
    """The names of what a component defines, by kind; as far as they are known before
    resolution."""
    checks = [
        key for item in (*(made.assets or ()), *(made.asset_checks or ())) for key in _checks(item)
    ]
    return {
        "assets": [key for item in made.assets or () for key in _assets(item)],
        "asset checks": checks,
        **{
            kind: [item.name for item in getattr(made, kind) or () if hasattr(item, "name")]
            for kind in ("jobs", "schedules", "sensors")
        },
        "resources": list(made.resources or ()),
    }


def _assets(item: Any) -> Iterator[str]:
    # Of what has several keys or only checks, `key` raises an error.
    keys = item.keys if hasattr(item, "keys") else [getattr(item, "key", None)]
    yield from (key_of(key) for key in keys if hasattr(key, "to_user_string"))


def _checks(item: Any) -> Iterator[str]:
    for key in getattr(item, "check_keys", ()):
        yield check_name(key)


# --- loading ----------------------------------------------------------------------------------


def _locations(dagster: Any, target: str) -> list[Any]:
    """The code locations of a module, made as a code server makes them."""
    name, _, package = target.partition(":")
    if name == NEAR:
        return _locations(dagster, _near(package))
    if name == AUTOLOAD:
        return [dagster.load_from_defs_folder(path_within_project=_project_of(package))]
    values = list(vars(importlib.import_module(name)).values())
    known = (dagster.Definitions, dagster.RepositoryDefinition)
    lazy = [value() for value in values if type(value).__name__ == "LazyDefinitions"]
    found = [*lazy, *(value for value in values if isinstance(value, known))]
    if not found:
        raise LookupError(f"{name} has no definitions")
    return found


def _near(path: str) -> str:
    """What a code server loads for the package whose defs module is at a path in the artifact."""
    *parents, _ = path.strip("/").split("/")
    for start in range(len(parents) - 1, -1, -1):
        package = ".".join(parents[start:])
        if _exists(package):
            module = f"{package}.definitions"
            return module if _exists(module) else f"{AUTOLOAD}:{package}"
    raise ModuleNotFoundError(f"no package of {path} can be imported")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _project_of(package: str) -> Path:
    for parent in Path(str(importlib.import_module(package).__file__)).parents:
        if (parent / "dg.toml").exists() or (parent / "pyproject.toml").exists():
            return parent
    raise FileNotFoundError(f"There is no dg.toml above {package}.")


def answer(request: dict[str, Any]) -> None:
    """Prints the answer to a request, and ends."""
    line = json.dumps(main(request))
    sys.stdout.flush()
    with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as stream:
        stream.write(f"\n{MARKER}{line}\n")
    os._exit(0)  # nothing is left to do, and threads of libraries need not be waited for
