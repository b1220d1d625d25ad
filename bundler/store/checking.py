"""Reads everything that a store keeps, and reports what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bundler.errors import BundlerError
from bundler.store import content, pointer
from bundler.store.records import Current, Version
from bundler.store.store import Store


@dataclass(frozen=True)
class CheckedStore:
    """What was read, and its problems, as messages. size: in bytes."""

    versions: int
    size: int
    problems: tuple[str, ...]


def check(store: Store, *, everything: bool = True) -> CheckedStore:
    """Reads every byte of every version that is kept; or only of the current ones.

    Raises `UsageError` if nothing was ever pushed.
    """
    current = store.require_current()
    problems: list[str] = []
    wanted = dict(_wanted(store, current, everything, problems))
    found: dict[str, Version] = {}
    for version, needed in wanted.items():
        try:
            item = store.known.find(version)
        except BundlerError as error:
            problems.append(error.what)
            continue
        if item is not None:
            found[version] = item
        elif needed:
            problems.append(f"Version {version} of {needed} is missing.")
    pieces = {
        piece.place: piece for version in found.values() for _, piece in content.pieces(version)
    }
    problems += content.check(store.objects, pieces.values())
    size = sum(piece.size for piece in pieces.values())
    return CheckedStore(len(found), size, tuple(dict.fromkeys(problems)))


def _wanted(
    store: Store, current: Current, everything: bool, problems: list[str]
) -> Iterator[tuple[str, str]]:
    """Versions, each with the key that needs it; older ones may have been pruned."""
    if everything:
        try:
            for change in pointer.history(store.objects, current):
                for move in change.moves:
                    yield from ((item, "") for item in (move.before, move.after) if item)
        except BundlerError as error:
            problems.append(error.what)
    yield from ((pin.version, pin.key) for pin in current.pins)
    yield from ((entry.version, key) for key, entry in current.keys.items())
