"""A refresh of many keys in several jobs, which becomes one set only when all of them have
succeeded.

Each shard pushes its states without moving the pointer and records the versions; the join reads
these records by name and moves the pointer once. A join that finds a shard missing changes nothing.
Repeating a join, as a retried CI job does, returns the existing set.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Collection, Sequence
from typing import TypeVar

import msgspec

from bundler.errors import ConfigurationError, UsageError, VerificationFailed
from bundler.state.manifest import decode_canonical
from bundler.store import pointer, records
from bundler.store.lease import server_time
from bundler.store.objects import StoredObject
from bundler.store.pointer import NOBODY, Author
from bundler.store.pushing import GRACE_SECONDS, NewState, Push
from bundler.store.records import Current, Joined, Shard
from bundler.store.store import Store

_Model = TypeVar("_Model", Shard, Joined)
_RUN = re.compile(r"^[A-Za-z0-9._-]{1,100}$")
_SHARD = re.compile(r"^([1-9][0-9]{0,5})/([1-9][0-9]{0,5})$")


def parse_shard(text: str) -> tuple[int, int]:
    """``3/10`` as numbers. Raises `UsageError`."""
    found = _SHARD.match(text)
    if found is None or int(found[1]) > int(found[2]):
        raise UsageError(f"{text!r} is not a shard.", hint="Use 3/10 for the third of ten.")
    return int(found[1]), int(found[2])


def belongs(key: str, index: int, count: int) -> bool:
    """Whether a shard refreshes a key; the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % count == index - 1


def stage(
    store: Store,
    states: Sequence[NewState],
    run: str,
    shard: tuple[int, int],
    author: Author = NOBODY,
) -> Shard:
    """Uploads what one shard has refreshed. A shard that runs again replaces its earlier record.

    run: the ID that the shards of one refresh share, such as the CI run's id. Raises `UsageError`
    if the earlier record has other keys: it is another project's.
    """
    name = _name(run, shard[0])
    attempt = Push(store.known, states, author).attempt(share=False)
    kept = {key: attempt.before[key].version for key in attempt.unchanged}
    versions = tuple(version.version for version in attempt.versions)
    refreshes = tuple(new.refresh for new in states if new.state.key in kept and new.refresh)
    value = Shard(shard[0], shard[1], versions, kept, refreshes)
    pointer.make(store.objects)
    while not store.objects.create(name, raw := records.encode(value)):
        stored = store.objects.get(name)
        if stored is None:
            continue
        _refuse_others(store, stored, run, value, {new.state.key for new in states})
        if store.objects.replace(name, raw, stored.tag):
            break
    return value


def _refuse_others(
    store: Store, stored: StoredObject, run: str, shard: Shard, keys: Collection[str]
) -> None:
    """Refuses to replace the record of a shard that has other keys, unless it is too old."""
    before = decode_canonical(stored.data, Shard, f"{store.url}/{_name(run, shard.index)}")
    there = {version.key for version in store.known.find_all(before.versions).values()}
    lost = sorted(there.union(before.unchanged).difference(keys))
    too_old = server_time(store.objects) - GRACE_SECONDS / 2
    if lost and before.count == shard.count and stored.modified >= too_old:
        raise UsageError(
            f"Shard {shard.index}/{shard.count} of run {run} was already pushed with other keys: "
            f"{', '.join(lost)}.",
            hint=f"Give each project its own run, such as --run {run}-NAME, and join each.",
        )


def join(store: Store, run: str, count: int, author: Author = NOBODY) -> Current | Joined:
    """Makes one set of what all shards of a run have pushed; returns the existing set if that was
    done before.

    Raises `UsageError` if a shard is missing or too old, or a key has changed meanwhile.
    """
    too_old = server_time(store.objects) - GRACE_SECONDS / 2
    shards, missing = _all(store, run, count, too_old)
    before = _recent(store, _joined_name(run), Joined, too_old)
    if before is not None and before.count == count and _is_done(before, shards, missing):
        _forget(store, run, count)
        return before
    if missing:
        raise UsageError(
            f"{store.url} has no shard {', '.join(missing)} of run {run}; nothing was joined.",
            hint=f"Refresh each missing shard: state-bundler refresh --shard {missing[0]} "
            f"--run {shlex.quote(run)} --store {shlex.quote(store.url)}",
        )
    kept = {key: version for shard in shards for key, version in shard.unchanged.items()}
    current = store.current()
    for key, version in kept.items():
        entry = current.keys.get(key) if current else None
        if entry is None or entry.version != version:
            raise UsageError(
                f"{key} was changed while run {run} refreshed it.", hint="Refresh again.", key=key
            )
    wanted = [version for shard in shards for version in shard.versions]
    found = store.known.find_all(wanted)
    for version in wanted:
        if version not in found:
            raise VerificationFailed(f"{store.url} no longer has version {version} of run {run}.")
    unchanged = store.all_of(kept)
    current = store.adopt([found[version] for version in wanted], "join", author)
    store.confirm(
        msgspec.structs.replace(unchanged[refresh.key], refresh=refresh)
        for shard in shards
        for refresh in shard.refreshes
        if refresh.key in unchanged
    )
    raw = records.encode(Joined(count, current.number, current.change.made, tuple(wanted)))
    store.objects.write(_joined_name(run), [raw], len(raw))
    _forget(store, run, count)
    return current


def _is_done(joined: Joined, shards: Sequence[Shard], missing: Sequence[str]) -> bool:
    """Whether these shards are in that set; an interrupted join may have removed some of them."""
    versions = {version for shard in shards for version in shard.versions}
    return versions <= set(joined.versions) if missing else versions == set(joined.versions)


def _forget(store: Store, run: str, count: int) -> None:
    store.objects.delete([_name(run, index) for index in range(1, count + 1)])


def _recent(store: Store, name: str, kind: type[_Model], too_old: float) -> _Model | None:
    """A record of a run; None if it is missing, or from an earlier run with the same ID."""
    stored = store.objects.get(name)
    if stored is None or stored.modified < too_old:
        return None
    return decode_canonical(stored.data, kind, f"{store.url}/{name}")


def _all(store: Store, run: str, count: int, too_old: float) -> tuple[list[Shard], list[str]]:
    """What the shards have pushed, and the missing shards, as ``3/10``."""
    shards, missing = [], []
    for index in range(1, count + 1):
        shard = _recent(store, _name(run, index), Shard, too_old)
        if shard is None:
            missing.append(f"{index}/{count}")
            continue
        if (shard.index, shard.count) != (index, count):
            raise UsageError(
                f"Run {run} consists of {shard.count} shards, not {count}.",
                hint=f"Join {shard.count}, or run shard {index}/{count} again.",
            )
        shards.append(shard)
    return shards, missing


def _joined_name(run: str) -> str:
    return f"{_folder(run)}/joined.json"


def _name(run: str, index: int) -> str:
    return f"{_folder(run)}/{index}.json"


def _folder(run: str) -> str:
    if not _RUN.match(run) or run in (".", ".."):
        raise ConfigurationError(
            f"{run!r} is not a valid run ID.", hint="Use letters, digits, '.', '_' and '-'."
        )
    return f"shards/{run}"
