"""Versioned keys in a build: their versions are pinned in the manifest, or their states embedded.

A pinned version is named, so that users can tell what the program knew, and so that ``store prune
--referenced-by`` keeps it. An embedded one is also in the artifact, so that the program starts
while the store is down (`bundler.store.embedded`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from bundler.artifacts.stored import refresh_of
from bundler.errors import UsageError
from bundler.state.manifest import KeyRefresh, State
from bundler.state.statedir import sanitize_key
from bundler.store.records import Version
from bundler.store.store import Store


@dataclass(frozen=True)
class CurrentVersions:
    """Implements `options.StoredVersions`: the current versions in the projects' stores, asked
    once.

    needed: whether a key without a version is an error.
    """

    stores: tuple[Store, ...]
    embeds: bool = False
    needed: bool = False

    @cached_property
    def _found(self) -> dict[str, tuple[Store, Version]]:
        return {
            key: (store, version)
            for store in self.stores
            for key, version in store.currents().items()
        }

    def state(self, key: str) -> tuple[State, KeyRefresh] | None:
        """See `bundler.project.options.Stored`."""
        if key not in self._found:
            if self.needed or self.embeds:
                urls = ", ".join(store.url for store in self.stores)
                raise UsageError(
                    f"{urls} has no current version of {key}.",
                    hint="Push one: state-bundler refresh --push",
                    key=key,
                )
            return None
        _, version = self._found[key]
        # It may have been pushed from a directory with another name.
        path = sanitize_key(key)
        state = msgspec.structs.replace(version.state, path=path, version=version.version)
        return state, refresh_of(version)

    def pull(self, key: str, directory: Path) -> None:
        """See `bundler.project.options.Stored`."""
        store, version = self._found[key]
        store.pull([(version, directory)])
