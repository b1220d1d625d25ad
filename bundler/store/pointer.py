"""Moves the pointer by compare and swap, and walks the sets that it went through.

**Why no update is lost**, as a race between two writers, P and Q, at set 7:

1. P and Q read the pointer: set 7, tag t7.
2. P puts ``sets/7.json`` in place (it may be there already, and is the same then) and writes set 8
   on the condition t7. Q does the same; one of the two writes is refused.
3. Q reads the pointer again, finds set 8, decides anew on that, and writes set 9.

**Why a lost answer does no harm**: a write that was applied, while its answer was lost, is refused
when it is sent again. So a writer that is refused looks for its own id: in the pointer, or, where
others have moved on meanwhile, in ``sets/<its number>.json``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from bundler.errors import ConfigurationError, Locked, VerificationFailed
from bundler.state.manifest import decode_canonical
from bundler.store import records
from bundler.store.objects import Objects
from bundler.store.records import Action, Change, Current, Format, Move
from bundler.system import retries, times

FEWER = "Try again when fewer pipelines push concurrently."
_PATIENCE_SECONDS = 180.0
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0
_JITTER_SECONDS = 0.1
_T = TypeVar("_T")
# How many sets to read concurrently: walking a long history only waits for the network.
_AT_ONCE = 16


@dataclass(frozen=True)
class Author:
    """Who changes the store, and from which commit."""

    by: str = ""
    commit: str | None = None
    note: str = ""


NOBODY = Author()
_NO_SET = Change(0, str(uuid.UUID(int=0)), "1970-01-01T00:00:00Z", "push", ())
NOTHING = Current(_NO_SET, {})  # the pointer of a store without a push


def read(objects: Objects) -> Current | None:
    """The newest set; None if nothing was ever pushed.

    Raises `VerificationFailed` for a pointer that is malformed.
    """
    return _read(objects)[0]


def _read(objects: Objects) -> tuple[Current | None, str]:
    stored = objects.get(records.POINTER_NAME)
    if stored is None:
        return None, ""
    return records.read_current(stored.data, objects.url), stored.tag


def advance(
    objects: Objects,
    action: Action,
    author: Author,
    decide: Callable[[Current | None], Current | None],
) -> Current:
    """Makes the next set.

    decide: returns the new pointer's keys, pins and labels, given the present one; None for no
    change. It may be called several times, and its exceptions are passed on. Number, time and moves
    are filled in here. Raises `Locked` if others are always faster.
    """
    mine = str(uuid.uuid4())

    def next_set(now: Current | None) -> Current | None:
        wanted = decide(now)
        return None if wanted is None else _numbered(now, wanted, action, author, mine)

    return _swap(objects, next_set, mine)


def amend(objects: Objects, decide: Callable[[Current], Current | None]) -> Current:
    """Changes anything that is not a set: pins, what is retired, confirmations. decide: see
    `advance`."""

    def amended(now: Current | None) -> Current | None:
        return None if now is None else decide(now)

    return _swap(objects, amended, None)


def _swap(
    objects: Objects, decide: Callable[[Current | None], Current | None], mine: str | None
) -> Current:
    tried = 0

    def swap() -> Current | None:
        nonlocal tried
        now, tag = _read(objects)
        if mine and tried and now and _is_in(objects, now, mine, tried):
            return now
        wanted = decide(now)
        if wanted is None:
            return now or NOTHING
        tried = wanted.number
        if now is None:
            make(objects)
        elif wanted.number != now.number:
            _keep(objects, now.change)
        return wanted if _write(objects, wanted, tag) else None

    outrun = Locked(
        f"{objects.url}: other writers updated the pointer first, for {_PATIENCE_SECONDS:g} s.",
        hint=FEWER,
    )
    return compete(swap, outrun, attempts=None, timeout=_PATIENCE_SECONDS)


def compete(write: Callable[[], _T | None], outrun: Locked, **limits: float | None) -> _T:
    """The result of `write`, which is repeated as long as another writer was first and it returns
    None.

    Raises `outrun` at the end.
    """

    def written() -> _T:
        result = write()
        if result is None:
            raise outrun
        return result

    return retries.retried(
        lambda error: error is outrun,
        written,
        wait_initial=_FIRST_PAUSE_SECONDS,
        wait_max=_LONGEST_PAUSE_SECONDS,
        wait_exp_base=1.5,
        wait_jitter=_JITTER_SECONDS,
        **limits,
    )


def _keep(objects: Objects, change: Change) -> None:
    """Puts a set in place. A store whose pointer was restored may have another with its number."""
    name, raw = records.set_name(change.number), records.encode(change)
    if not objects.create(name, raw):
        stored = objects.get(name)
        if stored is not None and stored.data != raw:
            objects.replace(name, raw, stored.tag)


def _write(objects: Objects, wanted: Current, tag: str) -> bool:
    raw = records.encode(wanted)
    if tag:
        return objects.replace(records.POINTER_NAME, raw, tag)
    return objects.create(records.POINTER_NAME, raw)


def _is_in(objects: Objects, now: Current, mine: str, number: int) -> bool:
    """Whether a write of ours whose answer was lost has become a set."""
    if now.number < number:
        return False
    change = now.change if now.number == number else read_set(objects, number)
    return change is not None and change.id == mine


def _numbered(
    now: Current | None, wanted: Current, action: Action, author: Author, mine: str
) -> Current:
    before = now or NOTHING
    change = Change(
        number=before.number + 1,
        id=mine,
        # Never before the previous set, whatever this machine's clock says.
        made=max(times.now(), before.change.made),
        action=action,
        moves=tuple(_moves(before, wanted)),
        by=author.by,
        commit=author.commit,
        note=author.note,
    )
    keys = {
        key: entry
        if before.keys.get(key) == entry
        else msgspec.structs.replace(entry, since=change.number)
        for key, entry in wanted.keys.items()
    }
    return msgspec.structs.replace(wanted, change=change, keys=keys)


def _moves(before: Current, after: Current) -> Iterator[Move]:
    for key in sorted({*before.keys, *after.keys}):
        old, new = before.keys.get(key), after.keys.get(key)
        move = Move(key, old.version if old else None, new.version if new else None)
        if move.before != move.after:
            yield move


def make(objects: Objects) -> None:
    """Creates a store, if there is none; checks that the bucket supports conditional writes.

    Raises `ConfigurationError` if it writes although the condition does not hold: updates would be
    lost there silently.
    """
    stored = objects.get(records.FORMAT_NAME)
    if stored is not None:
        decode_canonical(stored.data, Format, f"{objects.url}/{records.FORMAT_NAME}")
        return
    probe = f"probe/{uuid.uuid4().hex}"
    objects.create(probe, b"1")
    try:
        first = objects.get(probe)
        kept = first is not None and not objects.create(probe, b"2")
        if kept and first is not None and not objects.replace(probe, b"3", first.tag):
            # Either it is refused although the condition holds, or it was sent again after its
            # answer was lost.
            second = objects.get(probe)
            kept = second is not None and second.data == b"3"
        if not kept or first is None or objects.replace(probe, b"4", first.tag):
            raise ConfigurationError(
                f"{objects.url} does not support conditional writes, so one of two concurrent "
                "updates would be lost.",
                hint="Use a store that supports If-Match and If-None-Match on PUT.",
            )
    finally:
        objects.delete([probe])
    objects.create(records.FORMAT_NAME, records.encode(Format(times.now())))


def read_set(objects: Objects, number: int) -> Change | None:
    """An older set; None if it was pruned."""
    name = records.set_name(number)
    stored = objects.get(name)
    if stored is None:
        return None
    return decode_canonical(stored.data, Change, f"{objects.url}/{name}")


def history(objects: Objects, current: Current) -> Iterator[Change]:
    """Every set that is kept, the newest first.

    Raises `VerificationFailed` if one is missing that should exist.
    """
    if not current.number:
        return
    yield current.change
    older = range(current.number - 1, current.oldest - 1, -1)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(older), _AT_ONCE):
            numbers = older[start : start + _AT_ONCE]
            found = pool.map(lambda number: read_set(objects, number), numbers)
            for number, change in zip(numbers, found, strict=True):
                if change is None:
                    raise VerificationFailed(
                        f"{objects.url}/{records.set_name(number)} is missing: the history has a "
                        "gap.",
                        hint="If a prune is running, try again; otherwise restore the object.",
                    )
                yield change


def keys_at(current: Current, changes: Iterable[Change], number: int) -> dict[str, str]:
    """Which version each key had in a set: today's, with all later changes undone."""
    versions = {key: entry.version for key, entry in current.keys.items()}
    for change in changes:
        if change.number <= number:
            break
        for move in change.moves:
            if move.before is None:
                versions.pop(move.key, None)
            else:
                versions[move.key] = move.before
    return versions
