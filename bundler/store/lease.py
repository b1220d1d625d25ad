"""A lease on keys, so that two pipelines do not refresh the same keys concurrently.

All leases are in one object that changes by compare and swap. A lease ends at a time of the store's
own clock, so that a machine with a wrong clock neither steals a lease nor keeps one too long. A
holder renews its lease at a third of its length; one that died blocks nobody for longer than that
length.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from bundler.errors import BundlerError, Locked, Unavailable
from bundler.state.manifest import Model, decode_canonical
from bundler.state.tree import Size
from bundler.store import pointer, records
from bundler.store.objects import Objects

_NAME = "leases.json"
DEFAULT_SECONDS = 120.0
POLL_SECONDS = 2.0
_ATTEMPTS = 100


class _Lease(Model, frozen=True):
    """until: seconds since the epoch, by the store's clock. keys: empty means every key."""

    id: str
    holder: str
    until: Size
    keys: tuple[str, ...] = ()


class _Leases(
    Model, frozen=True, tag_field="_type", tag="https://state-bundler.io/store-leases/v1"
):
    leases: tuple[_Lease, ...] = ()


msgspec.json.Decoder(_Leases)  # before a thread does it: see `bundler.store.records`


def server_time(objects: Objects) -> float:
    """Now, in seconds since the epoch, by the store's clock: the time of a write there."""
    name = f"probe/{uuid.uuid4().hex}"
    objects.create(name, b"1")
    try:
        stored = objects.get(name)
    finally:
        objects.delete([name])
    if stored is None:
        raise Unavailable(
            f"{objects.url} does not return what was just written to it.",
            hint="Use a store that returns an object as soon as it is written.",
        )
    return stored.modified


@dataclass
class Held:
    """A lease that this process has."""

    length: float
    renewed: float

    def check(self) -> None:
        """Raises `Locked` if the lease has expired without being renewed."""
        if time.monotonic() - self.renewed > self.length:
            raise Locked(
                "The lease on the keys expired because the store was unreachable.",
                hint="Another pipeline may be refreshing them: try again.",
            )


@contextmanager
def lease(
    objects: Objects,
    keys: Sequence[str],
    holder: str,
    *,
    length: float = DEFAULT_SECONDS,
    wait: float = 0.0,
) -> Iterator[Held]:
    """Holds a lease on these keys, or on all if none is named. Times in seconds. The caller checks
    it before it changes what the lease protects.

    Raises `Locked` naming the holder if another process has one of them for longer than `wait`.
    """
    mine = _Lease(uuid.uuid4().hex, holder, 0, tuple(sorted(keys)))
    pointer.make(objects)
    held = Held(length, _acquire(objects, mine, length, wait))
    stop = threading.Event()
    renewer = threading.Thread(
        target=_keep_renewing, args=(objects, mine, held, stop), name="lease", daemon=True
    )
    renewer.start()
    try:
        yield held
    finally:
        stop.set()
        renewer.join()
        with suppress(BundlerError):  # it expires; what was done with it is done
            _change(objects, lambda _, leases: tuple(it for it in leases if it.id != mine.id))


def _acquire(objects: Objects, mine: _Lease, length: float, wait: float) -> float:
    end = time.monotonic() + wait
    while True:
        begun = time.monotonic()
        try:
            _change(objects, lambda now, leases: _with(now, leases, mine, length))
        except Locked:
            if time.monotonic() >= end:
                raise
            time.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))
        else:
            return begun


def _keep_renewing(objects: Objects, mine: _Lease, held: Held, stop: threading.Event) -> None:
    while not stop.wait(held.length / 3):
        begun = time.monotonic()
        try:
            _change(objects, lambda now, leases: _with(now, leases, mine, held.length))
        except BundlerError:
            continue  # `Held.check` notices in the end
        held.renewed = begun


def _with(
    now: float, leases: tuple[_Lease, ...], mine: _Lease, length: float
) -> tuple[_Lease, ...]:
    others = tuple(item for item in leases if item.id != mine.id and item.until > now)
    for other in others:
        both = set(other.keys).intersection(mine.keys)
        if both or not other.keys or not mine.keys:
            what = ", ".join(sorted(both)) or "Every key"
            raise Locked(
                f"{what}: {other.holder} is refreshing it now.",
                hint="Wait for it to finish: --wait 10m. If it was killed, its lease expires in "
                f"{max(1, math.ceil(other.until - now))} s.",
            )
    return (*others, msgspec.structs.replace(mine, until=math.ceil(now + length)))


def _change(
    objects: Objects, decide: Callable[[float, tuple[_Lease, ...]], tuple[_Lease, ...]]
) -> None:
    now = server_time(objects)
    where = f"{objects.url}/{_NAME}"

    def change() -> _Leases | None:
        stored = objects.get(_NAME)
        before = decode_canonical(stored.data, _Leases, where) if stored else _Leases()
        after = _Leases(decide(now, before.leases))
        raw = records.encode(after)
        written = objects.replace(_NAME, raw, stored.tag) if stored else objects.create(_NAME, raw)
        return after if written else None

    outrun = Locked(
        f"{where}: other pipelines changed it first, {_ATTEMPTS} times.", hint=pointer.FEWER
    )
    pointer.compete(change, outrun, attempts=_ATTEMPTS, timeout=None)
