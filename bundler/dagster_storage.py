"""A store as Dagster's defs state storage, to be named in ``dagster.yaml``::

    defs_state_storage:
      module: bundler.dagster_storage
      class: StoreDefsStateStorage
      config:
        url: s3://bucket/prefix

It replaces ``UPathDefsStateStorage``. Which version of a key is the latest is in the bucket,
so that every instance on it sees the same, and no concurrent refresh is lost. States
may be directories of any size. Credentials come from where the vendors' tools look for them.

In an image that was built with ``--embed-versioned`` the states of the build are used while the
store does not answer; with ``versions: pinned`` in the configuration, those of the build always
(``--pin-versioned``). What was embedded is found by itself, or where ``embedded`` says
(`bundler.store.embedded`).

Imports dagster: nothing else in this package imports it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import Enum, EnumValue, Field, StringSource
from dagster._core.storage.defs_state.base import DefsStateStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_shared.serdes.objects.models.defs_state_info import DefsKeyStateInfo, DefsStateInfo

from bundler.errors import ConfigurationError, Unavailable
from bundler.store import Store, embedded, handover, open_store, records
from bundler.system.times import seconds_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from bundler.store.records import Current


LATEST, PINNED = "latest", "pinned"
# A program with embedded states waits less for the store than one that depends on it.
_PATIENCE_SECONDS = 5.0
_SILENT_SECONDS = 30.0
_log = logging.getLogger("bundler.dagster_storage")


class StoreDefsStateStorage(DefsStateStorage, ConfigurableClass):
    """Dagster's interface over a `bundler.store.Store`.

    versions: ``latest``, or ``pinned`` for those that the manifest in the artifact names.
    embedded: where the artifact's state directories are; None looks for them.
    """

    def __init__(
        self,
        url: str,
        inst_data: ConfigurableClassData | None = None,
        *,
        versions: str = LATEST,
        embedded: str | None = None,
    ) -> None:
        self._inst_data = inst_data
        self._url = url
        self._follows = versions
        self._named = embedded
        self._silent_until = 0.0
        self.store: Store = open_store(url)

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        return {
            "url": Field(StringSource, description="s3://, gs://, az:// or file://"),
            "versions": Field(
                Enum("StoreVersions", [EnumValue(LATEST), EnumValue(PINNED)]),
                is_required=False,
                default_value=LATEST,
                description="latest, or the versions that the artifact's manifest pins",
            ),
            "embedded": Field(
                StringSource,
                is_required=False,
                description="the module or directory with embedded states; found automatically by "
                "default",
            ),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        return cls(
            url=config_value["url"],
            inst_data=inst_data,
            versions=config_value.get("versions", LATEST),
            embedded=config_value.get("embedded"),
        )

    @cached_property
    def _embedded(self) -> embedded.Embedded:
        return embedded.find(self._named, pinned=self._follows == PINNED)

    def get_latest_defs_state_info(self) -> DefsStateInfo | None:
        there = self._embedded
        if self._follows == PINNED:
            return self._pinned(there)
        if not there.states:
            return _of_store(self.store.current())
        found = self._if_it_answers()
        known = found.info_mapping if found is not None else {}
        missing = there.states.keys() - known.keys()
        return DefsStateInfo(info_mapping={**_infos(there, missing), **known})

    def _if_it_answers(self) -> DefsStateInfo | None:
        """The store's answer; None while it does not answer.

        After the first failure it is not waited for again: one load of a code location asks a dozen
        times.
        """
        if time.monotonic() < self._silent_until:
            return None
        try:
            current = open_store(self._url, _PATIENCE_SECONDS).current()
        except Unavailable as error:
            self._silent_until = time.monotonic() + _SILENT_SECONDS
            _log.warning("%s Using the state embedded in this program.", error.what)
            return None
        return _of_store(current)

    def _pinned(self, there: embedded.Embedded) -> DefsStateInfo:
        """Raises `ConfigurationError` if the artifact names no version."""
        if not there.pins:
            raise ConfigurationError(
                "This program is configured to use pinned versions, but its manifest pins none.",
                hint="Build it with --pin-versioned or --embed-versioned, or set the directory of "
                "the manifest: `embedded` in dagster.yaml.",
            )
        return DefsStateInfo(info_mapping=_infos(there, there.pins))

    def set_latest_version(self, key: str, version: str | None) -> None:
        if version is None or not records.is_version(version):
            # ``__local__``, ``__code_server__``: the key's state is elsewhere.
            self.store.label(key, version, handover.author())
        else:
            self.store.adopt([self.store.version(version)], "push", handover.author())

    def upload_state_from_path(self, key: str, version: str, path: Path) -> None:
        handover.upload(self.store, key, version, Path(path))

    def download_state_to_path(self, key: str, version: str, path: Path) -> None:
        """Everything next to ``state`` in the key directory is written next to `path`.

        An embedded version is not downloaded from the store.
        """
        found = self._embedded.find(key, version)
        if found is not None:
            found.copy(Path(path))
        else:
            handover.download(self.store, key, version, Path(path))


def _of_store(current: Current | None) -> DefsStateInfo | None:
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


def _infos(there: embedded.Embedded, keys: Iterable[str]) -> dict[str, DefsKeyStateInfo]:
    """These keys at the versions in the manifest, with the time of the manifest's file."""
    return {
        key: DefsKeyStateInfo(version=there.pins[key], create_timestamp=there.made) for key in keys
    }
