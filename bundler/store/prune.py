"""Removes versions that nobody needs any more, and what died writers left behind.

Kept are, of each key: its current version, the newest few, those that were current a short while
ago, the pinned ones, and those that an artifact names. The order makes a prune safe next to any
writer, and safe to kill:

1. The pointer is amended: the versions are *retired*, and the sets that led to them forgotten. A
   writer that rests on one of them has its compare and swap refused, and finds it retired.
2. Their objects are removed, except for content that a version that stays has in common with them.
   Nobody comes to share it meanwhile, since content is shared with current versions alone.
3. The pointer is amended again: nothing is retired any more. A prune that died before this step
   is finished by the next.

What belongs to no version is removed only when it is a day old: before, it may belong to a push
that is under way. Ages are by the store's own clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from bundler.errors import Locked, VerificationFailed
from bundler.state.artifact import Artifact
from bundler.state.manifest import parse
from bundler.state.run_record import version_in
from bundler.store import pointer, records
from bundler.store.lease import server_time
from bundler.store.pushing import GRACE_SECONDS
from bundler.store.records import Batch, Current, Version
from bundler.store.store import Store
from bundler.system.times import seconds_of

_ATTEMPTS = 20
# What we write in a store besides the pointer and the sets; a bucket may also have other objects.
_OURS = re.compile(
    r"content/[0-9a-f]{64}\.[0-9a-f]{8}|versions/[0-9a-f]{24}\.json"
    r"|shards/[^/]+/([0-9]+|joined)\.json|probe/[0-9a-f]{32}"
)
_SET = re.compile(r"sets/[0-9]{12}\.json")


@dataclass(frozen=True)
class PruneRules:
    """What to keep besides current and pinned versions; one matching rule is enough.

    keep: the number of newest versions of each key, including the current one. older_than: seconds;
    versions that were current since then stay. referenced: versions that artifacts name.
    """

    keep: int = 10
    older_than: float = 0.0
    referenced: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Pruned:
    """What a prune removed, or would remove.

    objects: content of the versions. size: its bytes. sets: how many sets are forgotten. leftovers:
    objects that belonged to no version.
    """

    versions: tuple[Version, ...]
    objects: tuple[str, ...]
    size: int
    sets: int
    leftovers: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """A version in the history.

    first: the number of the first set that names it. until: when it stopped being current, in
    seconds since the epoch.
    """

    key: str
    version: str
    first: int
    until: float


def prune(store: Store, rules: PruneRules, *, dry_run: bool = False) -> Pruned:
    """Raises `UsageError` if nothing was ever pushed, `Locked` if others never pause."""
    for _ in range(_ATTEMPTS):
        current = store.require_current()
        if current.retired and not dry_run:
            current = _finish(store, current)
        seen, now = _seen(store, current), server_time(store.objects)
        drop = frozenset(_dropped(current, seen, rules, now))
        oldest = _oldest(current, seen, drop)
        found = store.known.find_all(drop)
        kept = _kept(store, current, seen, drop)
        objects = _only(found.values(), kept.values())
        leftovers = tuple(_leftovers(store, {**kept, **found}, now))
        listed = {item.name: item.size for item in store.objects.list("content")}
        result = Pruned(
            tuple(found.values()),
            objects,
            sum(listed.get(name, 0) for name in objects),
            oldest - current.oldest,
            leftovers,
        )
        if dry_run or _carry_out(store, current, result, oldest):
            return result
    raise Locked(
        f"{store.url}: other writers updated the pointer during each of {_ATTEMPTS} attempts.",
        hint=pointer.FEWER,
    )


def _carry_out(store: Store, planned: Current, result: Pruned, oldest: int) -> bool:
    """Returns False, and does nothing, if the pointer has moved since the plan was made."""
    gone = tuple(version.version for version in result.versions)

    def retire(now: Current) -> Current | None:
        # A later set may refer to what is to be removed; so may a pin.
        if (now.number, now.pins) != (planned.number, planned.pins):
            return None
        return msgspec.structs.replace(now, retired=gone, oldest=oldest)

    if gone or oldest != planned.oldest:
        current = pointer.amend(store.objects, retire)
        if (current.number, current.pins) != (planned.number, planned.pins):
            return False
        _finish(store, current)
    store.objects.delete(result.leftovers)
    return True


def _seen(store: Store, current: Current) -> list[_Seen]:
    """Every version in the history, the newest first of each key."""
    found: dict[str, _Seen] = {}
    for change in pointer.history(store.objects, current):
        for move in change.moves:
            for version in filter(None, (move.after, move.before)):
                seen = _Seen(move.key, version, change.number, seconds_of(change.made))
                known = found.setdefault(version, seen)
                found[version] = replace(known, first=change.number)
    return list(found.values())


def _dropped(
    current: Current, seen: Sequence[_Seen], rules: PruneRules, now: float
) -> Iterator[str]:
    stay = {entry.version for entry in current.keys.values()}
    stay.update(pin.version for pin in current.pins)
    stay.update(rules.referenced)
    since = now - rules.older_than
    ranks: dict[str, int] = dict.fromkeys(current.keys, 1)  # the current one comes first
    for item in seen:
        entry = current.keys.get(item.key)
        if entry is not None and entry.version == item.version:
            continue
        ranks[item.key] = ranks.get(item.key, 0) + 1
        young = rules.older_than > 0 and item.until > since
        if item.version not in stay and ranks[item.key] > rules.keep and not young:
            yield item.version


def _oldest(current: Current, seen: Sequence[_Seen], drop: frozenset[str]) -> int:
    """The number of the set that made the oldest of the versions that stay current."""
    easy = {entry.version for entry in current.keys.values()}
    easy.update(pin.version for pin in current.pins)
    needed = [item.first for item in seen if item.version not in drop and item.version not in easy]
    return min([*needed, current.number])


def _kept(
    store: Store, current: Current, seen: Sequence[_Seen], drop: frozenset[str]
) -> dict[str, Version]:
    """The versions that stay. Raises `VerificationFailed` if one that must exist does not."""
    must = {key: entry.version for key, entry in current.keys.items()}
    must.update({f"{pin.key} (pinned)": pin.version for pin in current.pins})
    store.all_of(must)
    wanted = {item.version for item in seen} | set(must.values())
    return store.known.find_all(wanted - drop)


def _only(gone: Iterable[Version], kept: Iterable[Version]) -> tuple[str, ...]:
    shared = {name for version in kept for name in version.objects}
    return tuple(sorted({name for version in gone for name in version.objects} - shared))


def _finish(store: Store, current: Current) -> Current:
    """Removes what is retired, including what an interrupted prune retired."""
    retired = frozenset(current.retired)
    kept = _kept(store, current, _seen(store, current), retired)
    found = store.known.find_all(retired)
    store.objects.delete(_only(found.values(), kept.values()))
    for name in sorted({records.batch_name(version) for version in retired}):
        _thin_out(store, name, retired)
    # Their numbers have the same length: earlier as a text is earlier.
    sets = [item.name for item in store.objects.list("sets") if _SET.fullmatch(item.name)]
    store.objects.delete([name for name in sets if name < records.set_name(current.oldest)])
    return pointer.amend(
        store.objects,
        lambda now: msgspec.structs.replace(
            now, retired=tuple(item for item in now.retired if item not in retired)
        ),
    )


def _thin_out(store: Store, name: str, retired: frozenset[str]) -> None:
    """Removes versions from the object of their push; the last one takes it along."""
    stored = store.objects.get(name)
    if stored is None:
        return
    batch = records.read_batch(stored.data, name, store.url)
    left = tuple(version for version in batch.versions if version.version not in retired)
    if left:
        store.objects.replace(name, records.encode(Batch(left)), stored.tag)
    else:
        store.objects.delete([name])
    store.known.remember(name, Batch(left))


def _leftovers(store: Store, versions: Mapping[str, Version], now: float) -> Iterator[str]:
    """Objects that no version needs and that are too old to belong to a running push."""
    before = now - GRACE_SECONDS
    needed = {name for version in versions.values() for name in version.objects}
    needed.update(records.batch_name(version) for version in versions)
    for folder in ("content", "versions", "shards", "probe"):
        for item in store.objects.list(folder):
            is_ours = _OURS.fullmatch(item.name)
            if is_ours and item.name not in needed and item.modified < before:
                yield item.name


def referenced_by(artifact: Artifact) -> frozenset[str]:
    """The versions that an artifact refers to: those that it pins, and those it was made from.

    Raises `VerificationFailed` for an artifact whose manifest is missing or malformed: its versions
    are then unknown, and nothing may be removed.
    """
    record = artifact.run_record()
    origins = [key.origin for item in (record.refresh if record else ()) for key in item.keys]
    found = {version for origin in origins if (version := version_in(origin))}
    for directory in artifact.state_directories():
        what = f"{artifact.name}: the manifest of {directory.path}"
        raw = directory.read_manifest()
        if raw is None:
            raise VerificationFailed(f"{what} is missing.")
        contents = parse(raw, what).predicate.contents
        found.update(item.version for item in contents.non_local if item.version)
        found.update(state.version for state in contents.states if state.version)
    return frozenset(filter(records.is_version, found))
