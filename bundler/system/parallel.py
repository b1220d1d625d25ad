"""Concurrent, ordered work on many items: hashing, inflating and waiting let other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, TypeVar

if TYPE_CHECKING:
    from hashlib import _Hash

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Below this, starting threads costs more than they save.
_WORTH_BYTES = 4 * 1024 * 1024
# Handing one small file to a thread takes longer than hashing it, so many go in batches.
_MOST_IN_A_BATCH = 64
_LEAST_BATCHES = 8  # of each thread
# Registries answer in tens of milliseconds and count the requests of each client.
_MOST_WAITING = 8
_PIECE_BYTES = 1024 * 1024


def in_parallel(
    work: Callable[[_Item], _Result], items: Sequence[_Item], size: Callable[[_Item], int]
) -> Iterator[_Result]:
    """Like ``map(work, items)``, on several threads. size: of an item's file, in bytes."""
    workers = processors()
    if workers == 1 or len(items) == 1 or sum(map(size, items)) < _WORTH_BYTES:
        yield from map(work, items)
        return
    from concurrent.futures import ThreadPoolExecutor  # half of what importing this would take

    length = max(1, min(_MOST_IN_A_BATCH, len(items) // (_LEAST_BATCHES * workers)))
    batches = [items[start : start + length] for start in range(0, len(items), length)]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for results in pool.map(lambda batch: list(map(work, batch)), batches):
            yield from results


def while_waiting(
    work: Callable[[_Item], _Result], items: Sequence[_Item], waits: Callable[[_Item], bool]
) -> Iterator[_Result]:
    """Like ``map(work, items)``, with up to eight items concurrently that mostly wait for a server.

    waits: whether an item is one of these; the others would compete for memory and processors.
    """
    waiting = [waits(item) for item in items]
    if len(items) == 1 or not any(waiting):
        yield from map(work, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(max_workers=_MOST_WAITING)
    try:
        started = [
            pool.submit(work, item) if is_waiting else None
            for item, is_waiting in zip(items, waiting, strict=True)
        ]
        for item, future in zip(items, started, strict=True):
            yield work(item) if future is None else future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def while_programs_run(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """The work's results, with one item on each processor, for work that runs programs.

    An exception, such as that of Ctrl-C, ends the programs.
    """
    workers = min(processors(), len(items))
    if workers < 2:  # noqa: PLR2004
        return list(map(work, items))
    from concurrent.futures import ThreadPoolExecutor

    from bundler.system.process import stoppable

    with ThreadPoolExecutor(workers) as pool, stoppable() as context:
        started = [pool.submit(context.copy().run, work, item) for item in items]
        try:
            return [future.result() for future in started]
        finally:
            for future in started:
                future.cancel()


def update(stream: BinaryIO, hashes: Sequence[_Hash]) -> None:
    """Updates the hashes with the rest of a stream. Each piece of a large one is hashed while the
    next one is read."""
    piece = stream.read(_PIECE_BYTES)
    if len(piece) < _PIECE_BYTES:
        for each in hashes:
            each.update(piece)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=len(hashes)) as pool:
        while piece:
            hashing = [pool.submit(each.update, piece) for each in hashes]
            piece = stream.read(_PIECE_BYTES)
            for done in hashing:
                done.result()


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
