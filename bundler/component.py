"""State-backed components for programs without Dagster. The standard library only.

A *state-backed component* depends on an external system in two steps: `write_state_to_path` asks
the system and computes the state, at build time; `build_defs_from_state` uses it, in the program,
without the system::

    class Catalog(StateBackedComponent[list[Product]]):
        defs_state_config = DefsStateConfig("Catalog[acme]")

        def write_state_to_path(self, state_path: Path) -> None:
            state_path.write_text(json.dumps(fetch_products()))

        def build_defs_from_state(self, context, state_path):
            return parse(state_path.read_text()) if state_path else []

    with Load(Path(__file__).parent / "state") as load:
        products = load.build_defs(Catalog())

The names and the life cycle are Dagster's. A *load* is one start or reload of the program: in it
each key is written at most once, and versioned state stays at one version.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import shutil
import tempfile
import threading
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_DEVELOPMENT = "STATE_BUNDLER_DEVELOPMENT"


class StateError(Exception):
    """The state is missing, or is not what its manifest says."""


class StorageUnavailableError(StateError):
    """The storage of versioned state does not answer."""


class EmbeddedStateWarning(UserWarning):
    """The storage does not answer, so the state that was embedded in the program is used."""


class LegacyStateWarning(UserWarning):
    """A component fetches its state at every load: an outage breaks the load itself."""


class DefsStateManagementType(str, Enum):
    """Where a state lives."""

    LOCAL_FILESYSTEM = "LOCAL_FILESYSTEM"
    """Embedded in the artifact at build time."""

    VERSIONED_STATE_STORAGE = "VERSIONED_STATE_STORAGE"
    """In a storage from which each load takes the newest version."""

    LEGACY_CODE_SERVER_SNAPSHOTS = "LEGACY_CODE_SERVER_SNAPSHOTS"
    """Not stored: fetched on every load. Discouraged."""


@dataclass(frozen=True)
class DefsStateConfig:
    """key: names one state, ``ClassName[discriminator]``; components with the same key share it.

    refresh_if_dev: in development, fetch at every load instead of using the existing state.
    """

    key: str
    management_type: DefsStateManagementType = DefsStateManagementType.LOCAL_FILESYSTEM
    refresh_if_dev: bool = True

    @classmethod
    def of(
        cls,
        component: object,
        discriminator: str,
        management_type: DefsStateManagementType = DefsStateManagementType.LOCAL_FILESYSTEM,
        *,
        refresh_if_dev: bool = True,
    ) -> DefsStateConfig:
        """The configuration with the conventional key: the component's class and a
        discriminator."""
        key = f"{type(component).__name__}[{discriminator}]"
        return cls(key, management_type, refresh_if_dev)


@dataclass(frozen=True)
class LoadContext:
    """What a component may know of the load. version: of versioned state, else None."""

    state_directory: Path
    is_development: bool
    version: str | None = None


class StateBackedComponent(ABC, Generic[_T]):
    """A component whose definitions, whatever the program means by that, are built from a state."""

    @property
    @abstractmethod
    def defs_state_config(self) -> DefsStateConfig:
        """The key and how its state is managed. A class attribute or a property."""

    @abstractmethod
    def write_state_to_path(self, state_path: Path) -> Awaitable[None] | None:
        """Asks the external system and write the state, a file or a directory, to this path.

        May be ``async``. Must raise if a part could not be fetched: whatever is written is shipped.
        """

    @abstractmethod
    def build_defs_from_state(self, context: LoadContext, state_path: Path | None) -> _T:
        """Builds the definitions from the state. `state_path` is None only in development,
        without state."""


class DefsStateStorage(ABC):
    """Storage for versioned state, such as `bundler.component_storage`. A version is a name that is
    never reused.

    Raises `StorageUnavailableError` if the storage does not answer.
    """

    @abstractmethod
    def get_latest_version(self, key: str) -> str | None:
        """The version that new loads should use; None if there is none."""

    @abstractmethod
    def download_state_to_path(self, key: str, version: str, path: Path) -> None:
        """Copies the state of this version to a path. Raises `StateError` if it is missing."""

    @abstractmethod
    def upload_state_from_path(self, key: str, version: str, path: Path) -> None:
        """Stores the state at this path under a new version."""

    @abstractmethod
    def set_latest_version(self, key: str, version: str) -> None:
        """Makes a stored version the one that new loads use."""

    def store(self, key: str, path: Path) -> str:
        """Stores the state at this path and make it the latest. Returns its version."""
        version = str(uuid.uuid4())
        self.upload_state_from_path(key, version, path)
        self.set_latest_version(key, version)
        return version


@dataclass
class Load:
    """One load of the program. A context manager: what it fetched is deleted at the end.

    state_directory: as built, with ``@manifest.json``; its contents are verified before use.
    storage: for versioned state; if it is None or does not answer, the state that a build embedded
    with ``--embed-versioned`` is used. is_development: by default, whether the environment variable
    ``STATE_BUNDLER_DEVELOPMENT`` is set. In development, a missing state is passed on as None
    instead of being an error, and a fetched state is used for this load only: the built one stays
    unchanged.
    """

    state_directory: Path
    storage: DefsStateStorage | None = None
    is_development: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    _paths: dict[str, Path | None] = field(default_factory=dict, init=False, repr=False)
    _pinned: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _problems: list[str] | None = field(default=None, init=False, repr=False)
    _scratch: Path | None = field(default=None, init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def __enter__(self) -> Load:  # noqa: PYI034  # Self is in no standard library before 3.11
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Deletes what was fetched for this load."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
            self._paths.clear()

    @property
    def _develops(self) -> bool:
        if self.is_development is not None:
            return self.is_development
        return os.environ.get(_DEVELOPMENT, "").lower() in ("1", "true", "yes")

    def build_defs(self, component: StateBackedComponent[_T]) -> _T:
        """The definitions that the component builds from its state.

        Raises `StateError` if the state is missing or was altered.
        """
        key = component.defs_state_config.key
        with self._lock:
            if key not in self._paths:
                self._paths[key] = self._state_path(component)
            path = self._paths[key]
        context = LoadContext(self.state_directory, self._develops, self._pinned.get(key))
        return component.build_defs_from_state(context, path)

    def _state_path(self, component: StateBackedComponent[Any]) -> Path | None:
        config = component.defs_state_config
        if config.management_type is DefsStateManagementType.LEGACY_CODE_SERVER_SNAPSHOTS:
            warnings.warn(
                f"{config.key} is {config.management_type.value}: it is fetched on every load, so "
                "an outage breaks the load.",
                LegacyStateWarning,
                stacklevel=3,
            )
            return self._fetch(component)
        if self._develops and config.refresh_if_dev:
            return self._fetch(component)
        if config.management_type is DefsStateManagementType.VERSIONED_STATE_STORAGE:
            return self._versioned(config.key)
        return self._local(config.key)

    def _fetch(self, component: StateBackedComponent[Any]) -> Path:
        """Writes the state to a temporary place that is kept until the load ends."""
        key = component.defs_state_config.key
        path = self._room(key) / "state"
        result = component.write_state_to_path(path)
        if inspect.isawaitable(result):
            _complete(_wait_for(result))
        if not path.exists():
            raise StateError(f"`write_state_to_path` of {key!r} wrote nothing to its argument.")
        return path

    def _versioned(self, key: str) -> Path | None:
        embedded = self._embedded_version(key)
        if self.storage is None:
            if embedded is None:
                raise StateError(
                    f"{key!r} is in versioned storage, but no storage was passed to this load."
                )
            return self._use_embedded(key, embedded)
        try:
            return self._stored(key, self.storage, embedded)
        except StorageUnavailableError as error:
            if embedded is None or self.versions.get(key, embedded) != embedded:
                raise
            warnings.warn(
                f"{error} Using the embedded state of {key!r}.",
                EmbeddedStateWarning,
                stacklevel=5,
            )
            return self._use_embedded(key, embedded)

    def _stored(self, key: str, storage: DefsStateStorage, embedded: str | None) -> Path | None:
        version = self.versions.get(key) or storage.get_latest_version(key)
        if version is None and embedded is not None:
            # A storage that has lost its contents, such as a folder that is not mounted.
            raise StorageUnavailableError(f"The storage has no state of {key!r}.")
        if version is None:
            self._refuse_missing(f"The storage has no state of {key!r}.")
            return None
        if version == embedded:
            return self._use_embedded(key, version)
        path = self._room(key) / "state"
        storage.download_state_to_path(key, version, path)
        self._pinned[key] = version
        return path

    def _use_embedded(self, key: str, version: str) -> Path | None:
        self._pinned[key] = version
        return self._local(key)

    def _embedded_version(self, key: str) -> str | None:
        """The version of a key that the manifest says is embedded; `_local` verifies it."""
        from bundler.verify_at_start import read_regular

        try:
            raw = read_regular(str(self.state_directory / "@manifest.json"))
            states = json.loads(raw)["predicate"]["contents"]["states"]
            found = (state.get("version") for state in states if state["key"] == key)
            return next(found, None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _local(self, key: str) -> Path | None:
        folder = self.state_directory / _safe(key)
        path = folder / "state"
        if not path.exists():
            self._refuse_missing(f"There is no state for {key!r} in {self.state_directory}.")
            return None
        self._verify()
        return path

    def _refuse_missing(self, what: str) -> None:
        if not self._develops:
            raise StateError(f"{what} Run `state-bundler refresh`, and build with state-bundler.")

    def _verify(self) -> None:
        """Compares the whole state directory with its manifest, once per load."""
        from bundler.verify_at_start import problems

        if self._problems is None:
            self._problems = problems(str(self.state_directory))
        if self._problems:
            raise StateError(f"{self.state_directory}: {' '.join(self._problems)}")

    def _room(self, key: str) -> Path:
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="state-"))
        room = self._scratch / _safe(key)
        shutil.rmtree(room, ignore_errors=True)  # of a download that failed
        room.mkdir()
        return room


def _safe(key: str) -> str:
    """The name of a key's folder, as Dagster makes it."""
    name = _UNSAFE.sub("__", key)
    if name in ("", ".", ".."):
        raise StateError(f"The key {key!r} has no valid folder name.")
    return name


async def _wait_for(awaitable: Awaitable[None]) -> None:
    await awaitable


def _complete(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end, even if this thread already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, coroutine).result()
