"""A store as Dagster's defs state storage, to be named in ``dagster.yaml``::

    defs_state_storage:
      module: bundler.dagster_storage
      class: StoreDefsStateStorage
      config:
        url: s3://bucket/prefix

It stands in for ``UPathDefsStateStorage``. Which version of a key is the latest lies in the bucket,
so that every instance on it sees the same, and of several refreshes at once none is lost. States
may be directories of any size. Credentials come from where the vendors' tools look for them.

Imports dagster: nothing else in this package imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import Field, StringSource
from dagster._core.storage.defs_state.base import DefsStateStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_shared.serdes.objects.models.defs_state_info import DefsKeyStateInfo, DefsStateInfo

from bundler.storage import Store, handover, open_store, records
from bundler.storage.prune import seconds_of

if TYPE_CHECKING:
    from typing_extensions import Self


class StoreDefsStateStorage(DefsStateStorage, ConfigurableClass):
    """Dagster's interface over a `bundler.storage.Store`."""

    def __init__(self, url: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self.store: Store = open_store(url)

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        return {"url": Field(StringSource, description="s3://, gs://, az:// or file://")}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        return cls(url=config_value["url"], inst_data=inst_data)

    def get_latest_defs_state_info(self) -> DefsStateInfo | None:
        current = self.store.current()
        if current is None:
            return None
        latest = {
            key: DefsKeyStateInfo(version=entry.version, create_timestamp=seconds_of(entry.made))
            for key, entry in current.keys.items()
        }
        noted = seconds_of(current.change.made)
        for key, label in current.labels.items():
            latest[key] = DefsKeyStateInfo(version=label, create_timestamp=noted)
        return DefsStateInfo(info_mapping=latest)

    def set_latest_version(self, key: str, version: str | None) -> None:
        if version is None or not records.is_version(version):
            # ``__local__``, ``__code_server__``: the state of the key lies elsewhere.
            self.store.label(key, version, handover.author())
        else:
            self.store.adopt([self.store.version(version)], "push", handover.author())

    def upload_state_from_path(self, key: str, version: str, path: Path) -> None:
        handover.upload(self.store, key, version, Path(path))

    def download_state_to_path(self, key: str, version: str, path: Path) -> None:
        """What lies beside ``state`` in the key directory comes to lie beside `path`."""
        handover.download(self.store, key, version, Path(path))
