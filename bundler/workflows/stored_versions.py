"""Versioned keys in a build: their versions are pinned in the manifest, or their states embedded.

A pinned version is named, so that users can tell what the program knew, and so that ``store prune
--referenced-by`` keeps it. An embedded one is also in the artifact, so that the program starts
while the store is down (`bundler.store.embedded`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.errors import UsageError
from bundler.project.config import STORE_VARIABLE
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project
from bundler.state.manifest import KeyRefresh, State
from bundler.state.statedir import sanitize_key

if TYPE_CHECKING:
    from bundler.store.records import Version
    from bundler.store.store import Store


def with_stored(
    options: RefreshOptions,
    projects: Sequence[Project],
    *,
    pins: bool | None = None,
    embeds: bool = False,
) -> RefreshOptions:
    """The options with the projects' stores, which are only used for versioned keys.

    pins: whether the manifest names versions; None if a store is configured. embeds: whether their
    states are embedded. A project without a store has no versions, unless the options require them.
    """
    needed = embeds or bool(pins)
    storing = [
        project
        for project in projects
        if needed or (pins is None and (os.environ.get(STORE_VARIABLE) or project.config.store))
    ]
    if not storing:
        return options
    from bundler.store.configured import open_configured

    stores = {store.url: store for store in (open_configured(None, it.root) for it in storing)}
    stored = _CurrentVersions(tuple(stores.values()), embeds=embeds, needed=needed)
    return msgspec.structs.replace(options, stored=stored)


class _CurrentVersions:
    """Implements `options.StoredVersions`: the current versions in the projects' stores, asked
    once.

    needed: whether a key without a version is an error.
    """

    def __init__(self, stores: Sequence[Store], *, embeds: bool, needed: bool) -> None:
        self._stores = stores
        self._needed = needed
        self.embeds = embeds

    @cached_property
    def _found(self) -> dict[str, tuple[Store, Version]]:
        return {
            key: (store, version)
            for store in self._stores
            for key, version in store.currents().items()
        }

    def state(self, key: str) -> tuple[State, KeyRefresh] | None:
        from bundler.artifacts.stored import refresh_of

        if key not in self._found:
            if self._needed:
                urls = ", ".join(store.url for store in self._stores)
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
        store, version = self._found[key]
        store.known.pull([(version, directory)])
