"""Refreshes into a store: versioned keys, and optionally local ones as well.

Everything is fetched before anything is published or pushed, and pushed as one set.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import ConfigurationError, Locked
from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project
from bundler.refresh.collecting import Collected
from bundler.refresh.directories import LOCAL, VERSIONED
from bundler.refresh.run import Refreshed, fetch_into, refresh
from bundler.store import shards
from bundler.store.lease import POLL_SECONDS, Held, lease
from bundler.store.pointer import Author
from bundler.store.pushing import NewState, PushedStates
from bundler.store.records import Shard
from bundler.store.store import Store


@dataclass(frozen=True)
class Into:
    """The destination: a store. wait: how many seconds to wait for another pipeline's lease."""

    store: Store
    author: Author
    wait: float = 0.0


def refresh_and_push(
    projects: Sequence[Project], options: RefreshOptions, into: Into, listener: Listener
) -> tuple[Refreshed, PushedStates]:
    """Refreshes versioned and local keys, publishes the local ones, then pushes all as one set.

    Raises `Locked` if another pipeline refreshes one of the keys, and as `refresh` and `Store.push`
    do; the store is then unchanged.
    """
    with _lease(options.keys, into, into.wait), _scratch() as scratch:
        refreshed = refresh(projects, options, listener, scratch)
        listener.phase(f"Pushing to {into.store.url}")
        states = [*_new(refreshed.collected), *_published(refreshed)]
        pushed = into.store.push(states, into.author)
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
    if options.keys:
        raise ConfigurationError(
            "A shard selects its keys itself.", hint="Remove --key or --shard."
        )
    with ExitStack() as leased, _scratch() as scratch:

        async def choose(known: frozenset[str]) -> Sequence[str]:
            mine = sorted(key for key in known if shards.belongs(key, *shard))
            if mine:
                await _take_lease(leased, mine, into)
            return mine

        collected = fetch_into(
            scratch, projects, options, listener, types=(LOCAL, VERSIONED), choose=choose
        )
        return shards.stage(into.store, list(_new(collected)), run, shard, into.author)


def _lease(keys: Sequence[str], into: Into, wait: float) -> AbstractContextManager[Held]:
    return lease(into.store.objects, keys, into.author.by or "a pipeline", wait=wait)


async def _take_lease(held: ExitStack, keys: Sequence[str], into: Into) -> None:
    """Waits for the lease in a way that Ctrl-C can interrupt."""
    end = time.monotonic() + into.wait
    while True:
        try:
            held.enter_context(_lease(keys, into, 0.0))
        except Locked:
            if time.monotonic() >= end:
                raise
            await asyncio.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))
        else:
            return


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as path:
        yield Path(path)


def _new(collected: Iterable[Collected]) -> Iterator[NewState]:
    for item in collected:
        yield NewState(item.state, item.directory, item.place, item.refresh)


def _published(refreshed: Refreshed) -> Iterator[NewState]:
    for bundle, state, made in refreshed.states():
        yield NewState(state, bundle.root / state.path, bundle.place, made)
