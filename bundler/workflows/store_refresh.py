"""Refreshes into a store: versioned keys, and optionally local ones as well.

Everything is fetched before anything is published or pushed, and pushed as one set.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from bundler.errors import ConfigurationError, Locked
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project
from bundler.project.selection import Selection
from bundler.refresh.collecting import Collected
from bundler.refresh.directories import LOCAL, VERSIONED
from bundler.refresh.run import Refreshed, fetch_into, refresh
from bundler.store import shards
from bundler.store.configured import open_configured
from bundler.store.lease import POLL_SECONDS, Held, lease
from bundler.store.local import author
from bundler.store.pointer import Author
from bundler.store.pushing import NewState, PushedStates
from bundler.store.records import Shard
from bundler.store.store import Store


def refresh_and_push(
    selection: Selection,
    options: RefreshOptions,
    listener: Listener,
    *,
    url: str | None,
    wait: float,
) -> tuple[Refreshed, PushedStates, Store]:
    """Refreshes versioned and local keys, publishes the local ones, then pushes all as one set.

    url: of the store; None for the configured one. wait: how many seconds to wait for another
    pipeline's lease. Raises `Locked` if another pipeline refreshes one of the keys, and as
    `refresh` and `Store.push` do; the store is then unchanged.
    """
    projects = selection.find(listener)
    store, by = _destination(projects, url)
    with _lease(store, options.keys, by, wait) as held, _scratch() as scratch:
        refreshed = refresh(projects, options, listener, scratch)
        held.check()
        listener.phase(f"Pushing to {store.url}")
        states = [*_new(refreshed.collected), *_published(refreshed)]
        return refreshed, store.push(states, by), store


def refresh_shard(
    selection: Selection,
    options: RefreshOptions,
    listener: Listener,
    *,
    url: str | None,
    wait: float,
    run: str,
    shard: tuple[int, int],
) -> tuple[Store, Shard]:
    """Refreshes the keys of one shard and stages them in the store; publishes nothing here.

    url, wait: as `refresh_and_push` takes them.
    """
    if options.keys:
        raise ConfigurationError(
            "A shard selects its keys itself.", hint="Remove --key or --shard."
        )
    projects = selection.find(listener)
    store, by = _destination(projects, url)
    held: list[Held] = []
    with ExitStack() as leased, _scratch() as scratch:

        async def choose(known: frozenset[str]) -> Sequence[str]:
            mine = sorted(key for key in known if shards.belongs(key, *shard))
            if mine:
                held.append(await _take_lease(leased, store, mine, by, wait))
            return mine

        collected = fetch_into(
            scratch, projects, options, listener, types=(LOCAL, VERSIONED), choose=choose
        )
        for each in held:
            each.check()
        return store, shards.stage(store, list(_new(collected)), run, shard, by)


def _destination(projects: Sequence[Project], url: str | None) -> tuple[Store, Author]:
    root = projects[0].root
    return open_configured(url, root), author(root)


def _lease(
    store: Store, keys: Sequence[str], by: Author, wait: float
) -> AbstractContextManager[Held]:
    return lease(store.objects, keys, by.by or "a pipeline", wait=wait)


async def _take_lease(
    held: ExitStack, store: Store, keys: Sequence[str], by: Author, wait: float
) -> Held:
    """Waits for the lease in a way that Ctrl-C can interrupt."""
    end = time.monotonic() + wait
    while True:
        try:
            return held.enter_context(_lease(store, keys, by, 0.0))
        except Locked:
            if time.monotonic() >= end:
                raise
            await asyncio.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as path:
        yield Path(path)


def _new(collected: Iterable[Collected]) -> Iterator[NewState]:
    for item in collected:
        yield NewState(item.state, item.directory, item.place, item.refresh)


def _published(refreshed: Refreshed) -> Iterator[NewState]:
    for bundle, state, made, _ in refreshed.states():
        yield NewState(state, bundle.root / state.path, bundle.place, made)
