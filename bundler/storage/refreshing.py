"""Refreshes into a store: versioned keys, and, where it is asked for, local ones as well.

Everything is fetched before anything is published or pushed, and pushed as one set.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bundler.errors import ConfigurationError
from bundler.listener import Listener
from bundler.manifest import ManagementType
from bundler.options import RefreshOptions
from bundler.project import Project
from bundler.refresh.directories import Collected
from bundler.refresh.run import Refreshed, discover, fetch_into, refresh
from bundler.storage import shards
from bundler.storage.lease import lease
from bundler.storage.pointer import Author
from bundler.storage.pushing import NewState, Pushed
from bundler.storage.records import Shard
from bundler.storage.store import Store

_LOCAL: ManagementType = "LOCAL_FILESYSTEM"
_VERSIONED: ManagementType = "VERSIONED_STATE_STORAGE"


@dataclass(frozen=True)
class Into:
    """Where to: a store, in whose name. wait: seconds for another pipeline's lease to end."""

    store: Store
    author: Author
    wait: float = 0.0


def refresh_and_push(
    projects: Sequence[Project], options: RefreshOptions, into: Into, listener: Listener
) -> tuple[Refreshed, Pushed]:
    """Refreshes versioned and local keys, publishes the local ones, then pushes all as one set.

    Raises `Locked` where another pipeline refreshes one of the keys, and as `refresh` and
    `Store.push` do; the store is then as it was.
    """
    with _leased(options.keys, into), _collected(projects, options, listener) as collected:
        refreshed = refresh(projects, options, listener)
        listener.phase(f"Pushing to {into.store.url}")
        pushed = into.store.push([*_new(collected), *_published(refreshed)], into.author)
    return refreshed, pushed


def refresh_shard(
    projects: Sequence[Project],
    options: RefreshOptions,
    into: Into,
    *,
    run: str,
    shard: tuple[int, int],
    listener: Listener,
) -> Shard:
    """Refreshes the keys of one shard and stages them in the store; publishes nothing here."""
    mine = _keys_of(projects, options, shard, listener)
    if not mine:
        return shards.stage(into.store, [], run, shard, into.author)
    chosen = msgspec.structs.replace(options, keys=mine, management_types=(_LOCAL, _VERSIONED))
    with _leased(mine, into), tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        collected = fetch_into(Path(scratch), projects, chosen, listener)
        return shards.stage(into.store, list(_new(collected)), run, shard, into.author)


def _keys_of(
    projects: Sequence[Project],
    options: RefreshOptions,
    shard: tuple[int, int],
    listener: Listener,
) -> tuple[str, ...]:
    if options.keys:
        raise ConfigurationError(
            "A shard chooses its keys itself.", hint="Leave out --key, or --shard."
        )
    found = {
        component.key
        for source in discover(projects, listener)
        for component in source.components
        if component.management_type in (_LOCAL, _VERSIONED)
    }
    return tuple(sorted(key for key in found if shards.belongs(key, *shard)))


@contextmanager
def _leased(keys: Sequence[str], into: Into) -> Iterator[None]:
    with lease(into.store.objects, keys, into.author.by or "a pipeline", wait=into.wait):
        yield


@contextmanager
def _collected(
    projects: Sequence[Project], options: RefreshOptions, listener: Listener
) -> Iterator[Sequence[Collected]]:
    """The versioned keys' new states, which lie in a folder that goes with the context."""
    types = options.management_types
    if types and _VERSIONED not in types:
        yield ()
        return
    chosen = msgspec.structs.replace(options, management_types=(_VERSIONED,))
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        yield fetch_into(Path(scratch), projects, chosen, listener)


def _new(collected: Iterable[Collected]) -> Iterator[NewState]:
    for item in collected:
        yield NewState(item.state, item.directory, item.place, item.refresh)


def _published(refreshed: Refreshed) -> Iterator[NewState]:
    known = {
        (directory.path, key.key): key for directory in refreshed.record for key in directory.keys
    }
    for bundle in refreshed.bundles:
        for state in bundle.manifest.states:
            refresh_of = known.get((bundle.place, state.key))
            yield NewState(state, bundle.root / state.path, bundle.place, refresh_of)
