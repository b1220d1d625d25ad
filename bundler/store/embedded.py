"""Embedded states of versioned keys, for a program to use while the store is down.

A build with ``--embed-versioned`` puts the current states of versioned keys next to the local ones;
the manifest says which version each of them is. This module finds them in the running program:

1. where ``embedded`` of the storage's configuration or ``STATE_BUNDLER_EMBEDDED`` says, a module or
   a path of a state directory (several are separated as in ``PATH``);
2. else below every package that Python imports, in ``<package>/defs`` and ``<package>``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import ConfigurationError, VerificationFailed
from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY
from bundler.state.manifest import File, NonLocalKey, State, parse
from bundler.state.tree import hash_file
from bundler.system.atomic import io_errors

VARIABLE = "STATE_BUNDLER_EMBEDDED"
_BUFFER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class EmbeddedState:
    """A state in the artifact, and its key directory."""

    state: State
    directory: Path

    def copy(self, path: Path) -> None:
        """Copies ``state`` to a path, and its siblings next to that path.

        Raises `VerificationFailed` if a file differs from the manifest.
        """
        for file in self.state.files:
            target = target_of(path, file.path)
            with io_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._copy(file, target)

    def _copy(self, file: File, target: Path) -> None:
        source = self.directory / file.path
        with open(source, "rb") as stream, open(target, "xb") as out:
            shutil.copyfileobj(stream, out, _BUFFER_BYTES)
        found = hash_file(target)  # the copy is what will be used
        if found != (file.sha256, file.size):
            target.unlink()
            raise VerificationFailed(f"{source} does not match its manifest.", key=self.state.key)


@dataclass(frozen=True)
class Embedded:
    """The versioned keys in the artifact.

    states, pins: by key; a pin is a version. made: when the newest of the manifests was written
    here, in seconds since the epoch.
    """

    states: Mapping[str, EmbeddedState]
    pins: Mapping[str, str]
    made: float = 0.0

    def find(self, key: str, version: str) -> EmbeddedState | None:
        found = self.states.get(key)
        return found if found is not None and found.state.version == version else None


def find(named: str | None = None, *, pinned: bool = False) -> Embedded:
    """What is embedded in this program. named: modules and paths, as in the configuration. pinned:
    with the pins of keys whose state is elsewhere; every build writes them, but few programs use
    them.

    Raises `ConfigurationError` if one of them has no state directory, or if two of them name
    different versions of a key, `VerificationFailed` for a malformed manifest.
    """
    told = named or os.environ.get(VARIABLE)
    directories = [_named(item) for item in told.split(os.pathsep)] if told else _discovered()
    states: dict[str, EmbeddedState] = {}
    pins: dict[str, str] = {}
    made = 0.0
    for directory in directories:
        path = directory / MANIFEST_NAME
        with io_errors(path):
            contents = parse(path.read_bytes(), str(path)).predicate.contents
            made = max(made, path.stat().st_mtime)
        elsewhere = contents.non_local if pinned else ()
        items: tuple[State | NonLocalKey, ...] = (*contents.states, *elsewhere)
        for item in items:
            if item.version is None:
                continue
            if pins.setdefault(item.key, item.version) != item.version:
                raise ConfigurationError(
                    f"{directory} and another state directory of this program name different "
                    f"versions of {item.key}.",
                    hint=f"Set {VARIABLE}, or `embedded` in dagster.yaml, to the directory of this "
                    "code location.",
                    key=item.key,
                )
            if isinstance(item, State):
                states[item.key] = EmbeddedState(item, directory / item.path)
    return Embedded(states, pins, made)


def _named(name: str) -> Path:
    path = Path(name)
    places = [path, path / STATE_DIRECTORY, *_below_module(name)]
    found = next((place for place in places if (place / MANIFEST_NAME).is_file()), None)
    if found is None:
        raise ConfigurationError(
            f"{name} contains no state directory with a manifest.",
            hint="Pass the module of the definitions, such as shop.defs, or the directory itself.",
        )
    return found


def _below_module(name: str) -> Iterator[Path]:
    from importlib.util import find_spec

    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return
    for place in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(place) / STATE_DIRECTORY


def _discovered() -> list[Path]:
    """State directories with a manifest, of the packages that Python imports."""
    found: list[Path] = []
    imported: set[str] = set()
    for place in dict.fromkeys(Path(entry or ".").resolve() for entry in sys.path):
        packages = [Path(path) for path in _packages(place)]
        for package in packages:
            if package.name not in imported:
                inner = (package / "defs" / STATE_DIRECTORY, package / STATE_DIRECTORY)
                found += [path for path in inner if (path / MANIFEST_NAME).is_file()]
        # Another copy of a package further on is not the one that is imported.
        imported.update(it.name for it in packages if (it / "__init__.py").is_file())
    return found


def _packages(place: Path) -> Iterator[str]:
    try:
        with os.scandir(place) as listing:
            yield from sorted(item.path for item in listing if item.name.isidentifier())
    except OSError:
        return


def target_of(path: Path, name: str) -> Path:
    """The destination of a key directory's file, for a program that names ``state``'s path."""
    first, _, rest = name.partition("/")
    return (path / rest if rest else path) if first == "state" else path.parent / name
