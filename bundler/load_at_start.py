"""The second part of ``@verify.py``: loads the program, and ends with an exit code.

`bundler.state.bundle.verifier` appends it to `bundler.verify_at_start`, whose names it uses.
"""

import gc
import importlib
import json
import os
import sys

if "problems" not in globals():  # else they are above, in the same file
    from bundler.verify_at_start import (
        _IS_SCRIPT,
        MANIFEST,
        _without_own_folder,
        problems,
        read_regular,
    )

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A target with the name of a package means a project whose definitions `dg` finds itself.
AUTOLOAD = "defs-of"
# The prefix of the line with the result of a load; programs print, too.
REPORT = "\x1estate-bundler-load "
_MOST_TEXT = 2000
# As often as usual takes a tenth of a load. The program itself starts with Python's own setting.
_LOOK_FOR_CYCLES_AFTER = 100_000  # objects more
# Exit codes.
_USAGE = 2
_FAILED = 76
_TOOL_FAILED = 71
_INPUT_OUTPUT = 74


class LoadReport:
    """What came of loading the program: how many definitions of a kind, and each key's state.

    states: by key, whether its state was there; None for what is not in the artifact. declared:
    the keys of components that were loaded from a file.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, int] = {}
        self.states: dict[str, bool | None] = {}
        self.declared: list[str] = []
        self.error: str | None = None

    def of(self, target: str) -> "LoadReport":
        """Imports ``MODULE``, or calls ``MODULE:NAME``, and looks at what that makes."""
        try:
            dagster = self._watch_dagster()
            self._watch_components()
            self._load(target, dagster)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever it raises is the answer
            self.error = f"{type(error).__name__}: {error}"[:_MOST_TEXT]
        return self

    def problems(self, least: int = 1) -> list[str]:
        found = [
            f"{key} has no state." for key, there in sorted(self.states.items()) if there is False
        ]
        if self.error is not None:
            found.append(f"The program does not load: {self.error}")
        elif sum(self.definitions.values()) < least:
            number = sum(self.definitions.values())
            found.append(f"The program loads {number} definitions, fewer than {least}.")
        return found

    def _watch_dagster(self) -> "Any":
        """Dagster, which from now on reports which component gets its state; None without it."""
        dagster = _imported("dagster")
        base = getattr(dagster, "StateBackedComponent", None)
        if base is not None:
            original = base.build_defs

            def build_defs(component: "Any", context: "Any") -> "Any":
                config = component.defs_state_config
                if config.management_type.value != "LOCAL_FILESYSTEM":
                    embedded = _embedded_state(config.key, context.project_root)
                    if embedded is not None:
                        self.states[config.key] = True
                        return component.build_defs_from_state(context, state_path=embedded)
                    # What is not in the artifact needs the network, which a check does not have.
                    self.states.setdefault(config.key, None)
                    return dagster.Definitions()
                self._watch_class(type(component))
                return original(component, context)

            load_one = base.load.__func__

            def load(kind: "Any", *arguments: "Any", **options: "Any") -> "Any":
                component = load_one(kind, *arguments, **options)
                self.declared.append(component.defs_state_config.key)
                return component

            base.build_defs, base.load = build_defs, classmethod(load)
        return dagster

    def _watch_class(self, kind: "Any") -> None:
        original = kind.build_defs_from_state
        if getattr(original, "watched", False):
            return

        def build_defs_from_state(
            component: "Any", context: "Any", state_path: "Any" = None
        ) -> "Any":
            self.states[component.defs_state_config.key] = state_path is not None
            return original(component, context, state_path)

        build_defs_from_state.watched = True  # type: ignore[attr-defined]  # read above
        kind.build_defs_from_state = build_defs_from_state

    def _watch_components(self) -> None:
        module = _imported("bundler.component")
        if module is None:
            return
        original = module.Load.build_defs

        def build_defs(load: "Any", component: "Any") -> "Any":
            config = component.defs_state_config
            local = config.management_type.value == "LOCAL_FILESYSTEM"
            try:
                made = original(load, component)
            except module.StateError:
                self.states[config.key] = False if local else None
                raise
            self.states[config.key] = True if local else None
            self._add("definitions", made)
            return made

        module.Load.build_defs = build_defs

    def _load(self, target: str, dagster: "Any") -> None:
        name, _, attribute = target.partition(":")
        if name == AUTOLOAD:
            self._count(_autoloaded(dagster, attribute))
            return
        module = importlib.import_module(name)
        found = [getattr(module, attribute)] if attribute else list(vars(module).values())
        locations = [value for value in found if dagster and _is_location(dagster, value)]
        for location in locations:
            self._count(location() if callable(location) else location)
        if attribute and not locations and callable(found[0]):
            made = found[0]()
            if not self.definitions:
                self._add("definitions", made)

    def _count(self, location: "Any") -> None:
        has_repository = hasattr(location, "get_repository_def")
        repository = location.get_repository_def() if has_repository else location
        graph = repository.asset_graph
        self._add("assets", graph.get_all_asset_keys())
        self._add("asset checks", graph.asset_check_keys)
        self._add("jobs", [name for name in repository.job_names if not name.startswith("__")])
        self._add("schedules", repository.schedule_defs)
        self._add("sensors", repository.sensor_defs)

    def _add(self, kind: str, made: "Any") -> None:
        number = len(made) if hasattr(made, "__len__") else 1
        self.definitions[kind] = self.definitions.get(kind, 0) + number


def _imported(name: str) -> "Any":
    """A module, or None if it is not installed; any other failure is the program's."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            return None
        raise


def _embedded_state(key: str, project_root: "Any") -> "Any":
    """The path of the state of a versioned key, if a build embedded it; else None."""
    paths = importlib.import_module("dagster.components.utils.project_paths")
    defs = paths.get_defs_module_path_for_project(project_root)
    directory = defs / ".local_defs_state"
    try:
        raw = read_regular(str(directory / MANIFEST))
    except (OSError, ValueError):
        return None
    for state in json.loads(raw)["predicate"]["contents"]["states"]:
        if state["key"] == key and "version" in state:
            return directory / state["path"] / "state"
    return None


def _is_location(dagster: "Any", value: object) -> bool:
    if isinstance(value, (dagster.Definitions, dagster.RepositoryDefinition)):
        return True
    return type(value).__name__ == "LazyDefinitions"  # what @definitions makes


def _autoloaded(dagster: "Any", package: str) -> "Any":
    """What `dg` makes of a project without a module of definitions, from its defs folder."""
    from pathlib import Path

    for folder in Path(str(importlib.import_module(package).__file__)).parents:
        if any((folder / name).exists() for name in ("dg.toml", "pyproject.toml")):
            return dagster.load_from_defs_folder(path_within_project=folder)
    raise FileNotFoundError(f"There is no dg.toml above {package}.")


# --- the program ------------------------------------------------------------------------------


def _options(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Our options at the front, and the program that follows."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0] in ("--load", "--min-definitions", "--report"):
        name = rest.pop(0)
        options[name] = "" if name == "--report" or not rest else rest.pop(0)
    return options, rest


def main(arguments: list[str]) -> int:
    options, program = _options(arguments)
    if "--report" in options:
        load = LoadReport().of(options["--load"])
        return 0 if _print(sys.stdout, REPORT + json.dumps(vars(load))) else _INPUT_OUTPUT
    least = options.get("--min-definitions", "1")
    if not least.isdecimal() or ("--min-definitions" in options and "--load" not in options):
        _print(sys.stderr, "state-bundler: --min-definitions requires a number, and --load.")
        return _USAGE
    directory = os.path.dirname(os.path.abspath(__file__))
    found = [f"{directory}: {problem}" for problem in problems(directory)]
    if not found and "--load" in options:
        if _IS_SCRIPT and _without_own_folder([""]):
            sys.path.insert(0, "")  # the program imports as from `python -m`
        found = LoadReport().of(options["--load"]).problems(int(least))
    for problem in found:
        _print(sys.stderr, f"state-bundler: {problem}")
    if found:
        return _FAILED
    return _become(program) if program else 0


def _become(program: list[str]) -> int:
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        os.execvp(program[0], program)  # noqa: S606  # to become the program is the point
    except OSError as error:
        _print(sys.stderr, f"state-bundler: {program[0]} cannot be started: {error.strerror}.")
        return _TOOL_FAILED


def _print(stream: "Any", line: str) -> bool:
    """False if nothing takes the line (``2>&-``, a full disk). The exit code reports it too."""
    if stream is None:
        return False
    try:
        print(line, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # else Python's end fails, too
        return False
    return True


if __name__ == "__main__":
    gc.set_threshold(_LOOK_FOR_CYCLES_AFTER)
    sys.exit(main(sys.argv[1:]))
