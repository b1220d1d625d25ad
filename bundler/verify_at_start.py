"""Checks the states beside this file against their manifest, before the program starts.

It is put beside the manifest as ``@verify.py`` and needs nothing but Python:

    python .local_defs_state/@verify.py                       # an init container: exit 0 or 76
    python .local_defs_state/@verify.py dagster api grpc …    # an entrypoint: check, then become it
    python .local_defs_state/@verify.py --load shop.definitions --min-definitions 10

With ``--load`` the code location, or the program on `bundler.component`, is loaded too: a component
without its state, an error, or fewer definitions than the least are a failure. Dagster itself loads
a missing state as "no assets" and says that all is well.

Every file that the manifest names must be there and be what it says. Nothing else may be there,
except what the program has added below a path that the manifest declares writable.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import stat
import sys

TYPE_CHECKING = False  # typing itself would cost a third of the run
if TYPE_CHECKING:
    from typing import Any

MANIFEST = "@manifest.json"
# Ours, but not part of what ships; an artifact that a plain copy filled may hold them.
NOT_SHIPPED = ("@run.json", "@staging")
FAILED = 76
TOOL_FAILED = 71
INPUT_OUTPUT = 74
# A target of this name and a package stands for a project whose definitions `dg` finds itself.
AUTOLOAD = "defs-of"
# What the line begins with that tells a build what came of a load; programs print, too.
REPORT = "\x1estate-bundler-load "
_MOST_TEXT = 2000
_BUFFER_BYTES = 256 * 1024
_TWO_THREADS_BYTES = 8 * 1024 * 1024


def problems(directory: str) -> list[str]:
    """Everything in a state directory that is not as its manifest says, as sentences."""
    path = os.path.join(directory, MANIFEST)
    try:
        with open(path, "rb") as stream:
            predicate = _predicate(stream.read())
        expected, writable = _expected(predicate)
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}."]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [f"{path} is not a valid manifest: {type(error).__name__}."]
    try:
        return _compare(directory, expected, writable)
    except OSError as error:
        return [f"{error.filename} cannot be read: {error.strerror}."]


def _predicate(raw: bytes) -> dict[str, Any]:
    """The statement's predicate. Raises `ValueError` for what is not wholly consistent."""
    predicate: dict[str, Any] = json.loads(raw)["predicate"]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://state-bundler.io/state-bundle/v1",
        "predicate": predicate,
        "subject": [
            {"digest": {"dirHash": _dir_hash(state["files"])}, "name": state["key"]}
            for state in predicate["contents"]["states"]
        ],
    }
    if (
        _canonical(statement) != raw
        or _digest(b"state-bundle-contents/v1", predicate["contents"]) != predicate["contentDigest"]
        or _digest(b"state-bundle-support/v1", predicate["support"]) != predicate["supportDigest"]
    ):
        raise ValueError(raw)
    return predicate


def _dir_hash(files: list[dict[str, str]]) -> str:
    lines = sorted((file["path"].encode(), file["sha256"].encode()) for file in files)
    return hashlib.sha256(b"".join(b"%s  %s\n" % (sha, path) for path, sha in lines)).hexdigest()


def _digest(domain: bytes, value: object) -> str:
    return hashlib.sha256(domain + b"\0" + _canonical(value)).hexdigest()


def _canonical(value: object) -> bytes:
    # All names in a manifest are ASCII and all numbers integers: there this is RFC 8785.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _expected(predicate: dict[str, Any]) -> tuple[dict[str, tuple[str, int]], tuple[str, ...]]:
    files = {file["path"]: (file["sha256"], file["size"]) for file in predicate["support"]}
    writable = []
    for state in predicate["contents"]["states"]:
        below = state["path"] + "/"
        writable += [below + path for path in state.get("writable", [])]
        for file in state["files"]:
            files[below + file["path"]] = (file["sha256"], file["size"])
    return files, tuple(writable)


def _compare(
    directory: str, expected: dict[str, tuple[str, int]], writable: tuple[str, ...]
) -> list[str]:
    missing = set(expected)
    found = []
    known = []
    for path in _walk(directory, ""):
        if path == MANIFEST or path in NOT_SHIPPED:
            continue
        missing.discard(path)
        if path in expected:
            known.append((path, *expected[path]))
        elif not _is_below(path, writable):
            found.append(f"{path} is not in the manifest.")
    altered = [f"{path} is not what the manifest says." for path in _altered(directory, known)]
    return found + altered + [f"{path} is missing." for path in sorted(missing)]


def _altered(directory: str, files: list[tuple[str, str, int]]) -> list[str]:
    """Those of the files whose bytes have another digest, in order."""
    unproven = {path for path, _, _ in files}

    def check(some: list[tuple[str, str, int]]) -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        for path, sha256, size in some:
            if _is_same(os.path.join(directory, path), sha256, size, buffer):
                unproven.discard(path)

    # Hashing lets another thread run; for little, starting one is not worth it.
    second = None
    if sum(size for _, _, size in files) > _TWO_THREADS_BYTES:
        import threading

        second = threading.Thread(target=check, args=(files[1::2],))
        second.start()
    check(files[::2] if second else files)
    if second:
        second.join()
    return [path for path, _, _ in files if path in unproven]


def _walk(directory: str, below: str) -> list[str]:
    """Paths of everything below that is not a directory; links are not followed."""
    paths = []
    with os.scandir(os.path.join(directory, below)) as listing:
        for child in sorted(listing, key=lambda child: child.name):
            path = f"{below}/{child.name}" if below else child.name
            if child.is_dir(follow_symlinks=False) and path not in NOT_SHIPPED:
                paths += _walk(directory, path)
            else:
                paths.append(path)
    return paths


def _is_below(path: str, parents: tuple[str, ...]) -> bool:
    return any(path == parent or path.startswith(parent + "/") for parent in parents)


def _is_same(path: str, sha256: str, size: int, buffer: memoryview) -> bool:
    digest = hashlib.sha256()
    try:
        # Neither through a link nor waiting for whoever writes to a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                return False
            while count := os.readv(descriptor, [buffer]):
                digest.update(buffer[:count])
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return digest.hexdigest() == sha256


# --- loading ----------------------------------------------------------------------------------


class Load:
    """What came of loading the program: how many definitions of a kind, and each key's state.

    states: by key, whether its state was there; None for what does not lie in the artifact.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, int] = {}
        self.states: dict[str, bool | None] = {}
        self.error: str | None = None

    def of(self, target: str) -> Load:
        """Imports ``MODULE``, or calls ``MODULE:NAME``, and looks at what that makes."""
        try:
            dagster = self._watch_dagster()
            self._watch_components()
            self._load(target, dagster)
        except Exception as error:  # noqa: BLE001  # whatever the program raises is the answer
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

    def _watch_dagster(self) -> Any:
        """Dagster, which from now on tells which component gets its state; None without it."""
        dagster = _imported("dagster")
        base = getattr(dagster, "StateBackedComponent", None)
        if base is not None:
            original = base.build_defs

            def build_defs(component: Any, context: Any) -> Any:
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

            base.build_defs = build_defs
        return dagster

    def _watch_class(self, kind: Any) -> None:
        original = kind.build_defs_from_state
        if getattr(original, "watched", False):
            return

        def build_defs_from_state(component: Any, context: Any, state_path: Any = None) -> Any:
            self.states[component.defs_state_config.key] = state_path is not None
            return original(component, context, state_path)

        build_defs_from_state.watched = True  # type: ignore[attr-defined]  # read above
        kind.build_defs_from_state = build_defs_from_state

    def _watch_components(self) -> None:
        module = _imported("bundler.component")
        if module is None:
            return
        original = module.Load.build_defs

        def build_defs(load: Any, component: Any) -> Any:
            config = component.defs_state_config
            local = config.management_type.value == "LOCAL_FILESYSTEM"
            try:
                made = original(load, component)
            except module.StateError:
                self.states[config.key] = False if local else None
                raise
            self.states[config.key] = True if local else None
            self._add("definitions", len(made) if hasattr(made, "__len__") else 1)
            return made

        module.Load.build_defs = build_defs

    def _load(self, target: str, dagster: Any) -> None:
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
                self._add("definitions", len(made) if hasattr(made, "__len__") else 1)

    def _count(self, location: Any) -> None:
        repository = location
        if hasattr(location, "get_repository_def"):
            repository = location.get_repository_def()
        graph = repository.asset_graph
        self._add("assets", len(graph.get_all_asset_keys()))
        self._add("asset checks", len(graph.asset_check_keys))
        jobs = [name for name in repository.job_names if not name.startswith("__")]
        self._add("jobs", len(jobs))
        self._add("schedules", len(repository.schedule_defs))
        self._add("sensors", len(repository.sensor_defs))

    def _add(self, kind: str, number: int) -> None:
        self.definitions[kind] = self.definitions.get(kind, 0) + number


def _imported(name: str) -> Any:
    """A module, or None where it is not installed; any other failure is the program's."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            return None
        raise


def _embedded_state(key: str, project_root: Any) -> Any:
    """The path of the state of a versioned key, if a build embedded it; else None."""
    paths = importlib.import_module("dagster.components.utils.project_paths")
    defs = paths.get_defs_module_path_for_project(project_root)
    directory = defs / ".local_defs_state"
    try:
        raw = (directory / MANIFEST).read_bytes()
    except OSError:
        return None
    for state in json.loads(raw)["predicate"]["contents"]["states"]:
        if state["key"] == key and "version" in state:
            return directory / state["path"] / "state"
    return None


def _is_location(dagster: Any, value: object) -> bool:
    if isinstance(value, (dagster.Definitions, dagster.RepositoryDefinition)):
        return True
    return type(value).__name__ == "LazyDefinitions"  # what @definitions makes


def _autoloaded(dagster: Any, package: str) -> Any:
    """What `dg` makes of a project without a module of definitions, from its defs folder."""
    import pathlib

    directory = os.path.dirname(str(importlib.import_module(package).__file__))
    while not any(
        os.path.exists(os.path.join(directory, name)) for name in ("dg.toml", "pyproject.toml")
    ):
        parent = os.path.dirname(directory)
        if parent == directory:
            raise FileNotFoundError(f"There is no dg.toml above {package}.")
        directory = parent
    return dagster.load_from_defs_folder(path_within_project=pathlib.Path(directory))


# --- the program ------------------------------------------------------------------------------


def _options(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Our options at the front, and the program that follows."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0] in ("--load", "--min-definitions", "--report"):
        name = rest.pop(0)
        options[name] = "" if name == "--report" or not rest else rest.pop(0)
    return options, rest


def _verified() -> list[str]:
    directory = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == directory:
        # This folder's own names must not shadow the program's: it imports as from `python -m`.
        sys.path[0] = ""
    return [f"{directory}: {problem}" for problem in problems(directory)]


def main(arguments: list[str]) -> int:
    options, program = _options(arguments)
    if "--report" in options:
        load = Load().of(options["--load"])
        return 0 if _print(sys.stdout, REPORT + json.dumps(vars(load))) else INPUT_OUTPUT
    found = _verified()
    if not found and "--load" in options:
        least = int(options.get("--min-definitions", "1"))
        found = Load().of(options["--load"]).problems(least)
    for problem in found:
        _print(sys.stderr, f"state-bundler: {problem}")
    if found:
        return FAILED
    return _become(program) if program else 0


def _become(program: list[str]) -> int:
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        os.execvp(program[0], program)  # noqa: S606  # to become the program is the point
    except OSError as error:
        _print(sys.stderr, f"state-bundler: {program[0]} cannot be started: {error.strerror}.")
        return TOOL_FAILED


def _print(stream: Any, line: str) -> bool:
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
    sys.exit(main(sys.argv[1:]))
