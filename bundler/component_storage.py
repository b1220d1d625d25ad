"""A store as the storage of versioned states in a program without Dagster::

with Load(state_directory, storage=StoreStateStorage("s3://bucket/prefix")) as load:
    catalogue = load.build_defs(Catalogue())
"""

from __future__ import annotations

from pathlib import Path

from bundler.component import DefsStateStorage, StateError
from bundler.errors import UsageError
from bundler.storage import handover, open_store


class StoreStateStorage(DefsStateStorage):
    """`bundler.component.DefsStateStorage` over a `bundler.storage.Store`."""

    def __init__(self, url: str) -> None:
        self._store = open_store(url)

    def get_latest_version(self, key: str) -> str | None:
        current = self._store.current()
        entry = current.keys.get(key) if current else None
        return entry.version if entry else None

    def download_state_to_path(self, key: str, version: str, path: Path) -> None:
        try:
            handover.download(self._store, key, version, path)
        except UsageError as error:
            raise StateError(error.what) from error

    def upload_state_from_path(self, key: str, version: str, path: Path) -> None:
        """Also makes it the latest: a version that nothing names does not stay in a store."""
        handover.upload(self._store, key, version, path)

    def set_latest_version(self, key: str, version: str) -> None:
        try:
            found = self._store.version(version)
        except UsageError as error:
            raise StateError(error.what) from error
        if found.key != key:
            raise StateError(f"Version {version} is one of {found.key}, not of {key}.")
        self._store.adopt([found], "push", handover.author())
