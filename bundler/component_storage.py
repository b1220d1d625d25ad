"""A store as the storage of versioned states in a program without Dagster::

with Load(state_directory, storage=StoreStateStorage("s3://bucket/prefix")) as load:
    catalogue = load.build_defs(Catalogue())
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler.component import DefsStateStorage, StateError, StorageUnavailableError
from bundler.errors import Unavailable, UsageError
from bundler.store import handover, open_store


class StoreStateStorage(DefsStateStorage):
    """`bundler.component.DefsStateStorage` over a `bundler.store.Store`.

    patience: seconds for which a store that does not answer is asked again; None for the usual.
    """

    def __init__(self, url: str, patience: float | None = None) -> None:
        self._store = open_store(url, patience)

    def get_latest_version(self, key: str) -> str | None:
        with _answering():
            current = self._store.current()
        entry = current.keys.get(key) if current else None
        return entry.version if entry else None

    def download_state_to_path(self, key: str, version: str, path: Path) -> None:
        try:
            with _answering():
                handover.download(self._store, key, version, path)
        except UsageError as error:
            raise StateError(error.what) from error

    def upload_state_from_path(self, key: str, version: str, path: Path) -> None:
        """Also make it the latest: a store does not keep a version that nothing refers to."""
        handover.upload(self._store, key, version, path)

    def set_latest_version(self, key: str, version: str) -> None:
        try:
            found = self._store.version(version)
        except UsageError as error:
            raise StateError(error.what) from error
        if found.key != key:
            raise StateError(f"Version {version} belongs to {found.key}, not to {key}.")
        self._store.adopt([found], "push", handover.author())


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except Unavailable as error:
        raise StorageUnavailableError(error.what) from error
