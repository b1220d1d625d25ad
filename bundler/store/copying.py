"""Copies states from one store to another: versions keep their UUIDs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bundler.errors import VerificationFailed
from bundler.store import content, pointer, records
from bundler.store.content import Incoming
from bundler.store.pointer import NOBODY, Author
from bundler.store.pushing import relocated
from bundler.store.records import Batch, Current, Move
from bundler.store.store import Store

# The version that each key of a set gets; None for a key that is removed.
_Step = Mapping[str, str | None]


@dataclass(frozen=True)
class Copied:
    """The result of a copy.

    versions: those that were not there before. size: bytes of content. moves: of its sets.
    """

    versions: tuple[str, ...]
    size: int
    number: int
    moves: tuple[Move, ...] = ()


def copy(source: Store, target: Store, *, history: bool = False, author: Author = NOBODY) -> Copied:
    """Makes the source's current versions those of the target, atomically.

    history: also copy what was current before, set after set. Raises what either store raises, and
    `VerificationFailed` for content that differs from its digest; the target is then unchanged or,
    with history, at one of the source's sets.
    """
    steps = list(_steps(source, history=history))
    wanted = {version for step in steps for version in step.values() if version}
    versions, size = _bring(source, target, wanted)
    there = target.known.find_all(wanted)
    for key, version in steps[-1].items():
        if version not in there:
            raise VerificationFailed(
                f"{source.url} no longer has version {version} of {key}.", key=key
            )
    start = target.current() or pointer.NOTHING
    number, moves = start.number, list[Move]()
    for step in steps[_done(steps, target, start, there) :]:
        members = [there[version] for version in step.values() if version in there]
        gone = [key for key, version in step.items() if version is None]
        current = target.adopt(members, "copy", author, gone)
        if current.number > number:
            number = current.number
            moves += current.change.moves
    target.confirm(source.currents().values())
    return Copied(versions, size, number, tuple(moves))


def _done(steps: Sequence[_Step], target: Store, now: Current, there: Collection[str]) -> int:
    """How many steps an earlier copy has made: the target's keys are not taken back to older
    versions. What is current now may be that of several steps, if a version came back; so the
    steps are looked for in the target's own sets, one after the other."""
    if len(steps) == 1:
        return 0
    expected, made = list[_Step](), dict[str, str | None]()
    for step in steps:
        made.update((key, item) for key, item in step.items() if item is None or item in there)
        expected.append(dict(made))
    changes = list(pointer.history(target.objects, now))
    have: dict[str, str | None] = {**pointer.keys_at(now, changes, now.oldest - 1)}
    done = _last(expected, have)  # older sets may have been pruned
    for change in reversed(changes):
        have.update((move.key, move.after) for move in change.moves)
        while done < len(steps) and _is_in(expected[done], have):
            done += 1
    return _last(expected[:done], have)


def _last(expected: Sequence[_Step], have: _Step) -> int:
    """The number of the last step whose versions a store has; 0 if there is none."""
    return max((n for n, step in enumerate(expected, 1) if _is_in(step, have)), default=0)


def _is_in(step: _Step, have: _Step) -> bool:
    return all(have.get(key) == version for key, version in step.items())


def _steps(source: Store, *, history: bool) -> Iterator[_Step]:
    """What to make current, step by step, None for a key that was removed; the last is what is
    current in the source."""
    current = source.require_current()
    if history:
        changes = list(pointer.history(source.objects, current))
        yield pointer.keys_at(current, changes, current.oldest - 1)
        for change in reversed(changes):
            yield {move.key: move.after for move in change.moves}
    yield {key: entry.version for key, entry in current.keys.items()}


def _bring(source: Store, target: Store, wanted: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """Copies versions that the target does not have; returns their ids, and the bytes of
    content."""
    ids = set(wanted)
    missing = source.known.find_all(ids - set(target.known.find_all(ids)))
    pieces = content.places(missing.values()).values()
    if missing:
        pointer.make(target.objects)
    files = (
        Incoming(piece.sha256, piece.size, partial(content.read_file, source.objects, piece))
        for piece in pieces
    )
    places = content.upload(target.objects, files)
    moved = [relocated(version, places) for version in missing.values()]
    for name, batch in records.batches(moved).items():
        _add(target, name, batch)
    return tuple(missing), sum(piece.size for piece in pieces)


def _add(target: Store, name: str, wanted: Batch) -> None:
    """Adds versions to the object of their push, which may already contain others."""
    batch = wanted
    while not target.objects.create(name, records.encode(batch)):
        stored = target.objects.get(name)
        if stored is None:
            continue
        there = records.read_batch(stored.data, name, target.url).versions
        ids = {version.version for version in there}
        batch = Batch((*there, *(item for item in wanted.versions if item.version not in ids)))
        if target.objects.replace(name, records.encode(batch), stored.tag):
            break
    target.known.remember(name, batch)
