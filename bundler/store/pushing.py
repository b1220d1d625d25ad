"""Makes versions of states: uploads what the store does not have, and records where it is."""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bundler.errors import InputOutputError, UsageError
from bundler.state.manifest import KeyRefresh, State
from bundler.store import content, pointer, records
from bundler.store.content import StoredPlace, local_file
from bundler.store.lease import server_time
from bundler.store.objects import Objects
from bundler.store.pointer import Author
from bundler.store.reading import Versions
from bundler.store.records import Batch, Current, Entry, Move, Version
from bundler.system import times

# A prune removes what is in the store without being part of a set after a day. A push gives up
# after half of that.
GRACE_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class NewState:
    """A state to push: the manifest's entry of it, and its key directory.

    place: the state directory, as the program looks for it. refresh: how the state was made.
    version: a UUID that was chosen already, by Dagster for example.
    """

    state: State
    directory: Path
    place: str | None = None
    refresh: KeyRefresh | None = None
    version: str | None = None


@dataclass(frozen=True)
class PushedStates:
    """The result of a push.

    number: of the set. versions: of every key that was pushed. unchanged: keys that kept their
    version. uploaded: bytes that were uploaded. moves: from the earlier versions to these.
    """

    number: int
    versions: Mapping[str, str]
    unchanged: tuple[str, ...]
    uploaded: int
    moves: tuple[Move, ...] = ()


@dataclass
class Push:
    """A push in progress; it may take several attempts if others write the same keys."""

    known: Versions
    states: Sequence[NewState]
    author: Author
    uploaded: int = 0
    _fresh: dict[str, StoredPlace] = field(default_factory=dict)
    _written: dict[str, Batch] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        directories: dict[str, Path] = {}
        for new in self.states:
            key = new.state.key
            if key in directories:
                raise UsageError(
                    f"Two states to push have the key {key}: {directories[key]} and "
                    f"{new.directory}.",
                    hint="Give each its own key, or push one project at a time, with --project, "
                    "each to its own store.",
                    key=key,
                )
            directories[key] = new.directory

    def run(self) -> PushedStates:
        """Uploads, then moves the pointer. After an exception of either, nothing is visible."""
        while True:
            attempt = self.attempt(share=True)
            try:
                current = pointer.advance(self.known.objects, "push", self.author, attempt.decide)
            except OutdatedError:
                continue  # what was to be shared with the older version is uploaded now
            confirm(self.known.objects, self.states, current)
            return PushedStates(
                current.number,
                {new.state.key: current.keys[new.state.key].version for new in self.states},
                attempt.unchanged,
                self.uploaded,
                current.change.moves if attempt.versions else (),
            )

    def attempt(self, *, share: bool) -> Attempt:
        """Uploads what is needed for the current pointer. share: content with the current
        versions."""
        base = pointer.read(self.known.objects)
        entries = base.keys if base else {}
        mine = frozenset(new.state.key for new in self.states)
        before = {key: entry for key, entry in entries.items() if key in mine}
        current = self.known.find_all(entry.version for entry in before.values())
        # What a bucket's rule removed, for example, is uploaded again.
        lost = content.missing(self.known.objects, current.values())
        intact = {key for key, entry in before.items() if _is_intact(current, entry, lost)}
        changed = [
            new
            for new in self.states
            if new.state.key not in intact or _differs(new, before[new.state.key])
        ]
        renewed = {new.state.key for new in changed}
        pieces = content.places(
            version for version in current.values() if share and version.key in renewed
        )
        shared = {
            sha256: piece.place for sha256, piece in pieces.items() if piece.place.name not in lost
        }
        places = {**shared, **self._bring(changed, shared)}
        versions = _new_versions(changed, places, self.author)
        for name, batch in records.batches(versions).items():
            self._write(name, batch)
        names = {place.name for place in shared.values()}
        return Attempt(
            before=before,
            versions=versions,
            sharing=any(names.intersection(version.objects) for version in versions),
            unchanged=tuple(it.state.key for it in self.states if it.state.key not in renewed),
            deadline=self._started + GRACE_SECONDS / 2,
        )

    def _bring(
        self, changed: Sequence[NewState], shared: Mapping[str, StoredPlace]
    ) -> Mapping[str, StoredPlace]:
        """Uploads the files that are neither shared nor uploaded by an earlier attempt."""
        missing = {
            file.sha256: local_file(new.directory / file.path, file.sha256, file.size)
            for new in changed
            for file in new.state.files
            if file.sha256 not in shared and file.sha256 not in self._fresh
        }
        if changed:
            pointer.make(self.known.objects)
        self._fresh.update(content.upload(self.known.objects, missing.values()))
        self.uploaded += sum(file.size for file in missing.values())
        return self._fresh

    def _write(self, name: str, batch: Batch) -> None:
        objects, raw = self.known.objects, records.encode(batch)
        if not objects.create(name, raw):
            stored = objects.get(name)
            # Ours: sent again after an answer was lost, or written by an earlier attempt.
            ours = [raw, *(records.encode(old) for old in [self._written.get(name)] if old)]
            if stored is None or stored.data not in ours:
                raise UsageError(
                    f"{objects.url} already has a version {batch.versions[0].version}."
                )
            if stored.data != raw:
                objects.replace(name, raw, stored.tag)
        self._written[name] = batch
        self.known.remember(name, batch)


class OutdatedError(Exception):
    """Another writer moved a key meanwhile, so that this attempt refers to what may be removed."""


@dataclass(frozen=True)
class Attempt:
    """What one attempt wants the pointer to say, and its assumptions.

    before: what the pointer said about the keys. sharing: whether a version shares content with its
    predecessor, which only lasts while that is current. deadline: on this process's clock.
    """

    before: Mapping[str, Entry]
    versions: tuple[Version, ...]
    sharing: bool
    unchanged: tuple[str, ...]
    deadline: float

    def decide(self, now: Current | None) -> Current | None:
        """Raises `OutdatedError`, or `InputOutputError` if the push has taken too long."""
        if time.monotonic() > self.deadline:
            raise InputOutputError(
                "The push took too long: a prune may have removed parts of it.", hint="Push again."
            )
        keys = dict(now.keys) if now else {}
        for key in self.unchanged:
            if key not in keys or keys[key].semantic != self.before[key].semantic:
                raise OutdatedError
        for version in self.versions:
            mine, theirs = self.before.get(version.key), keys.get(version.key)
            if self.sharing and (mine and mine.version) != (theirs and theirs.version):
                raise OutdatedError
            keys[version.key] = entry_of(version)
        return with_keys(now, keys)


def _differs(new: NewState, entry: Entry) -> bool:
    """Whether a state needs its own version: also if a version was chosen for it."""
    return new.version is not None or entry.semantic != new.state.digest.semantic


def _is_intact(current: Mapping[str, Version], entry: Entry, lost: Collection[str]) -> bool:
    found = current.get(entry.version)
    return found is not None and not any(name in lost for name in found.objects)


def _new_versions(
    changed: Sequence[NewState], places: Mapping[str, StoredPlace], author: Author
) -> tuple[Version, ...]:
    push, made = records.new_push(), times.now()
    return tuple(
        relocated(
            Version(
                version=new.version or records.version_id(push, number),
                key=new.state.key,
                state=new.state,
                objects=(),
                at=(),
                made=made,
                by=author.by,
                commit=author.commit,
                place=new.place,
                refresh=new.refresh,
            ),
            places,
        )
        for number, new in enumerate(changed)
    )


def relocated(version: Version, places: Mapping[str, StoredPlace]) -> Version:
    """The version with its files in these places, by their sha256."""
    mine = [places[file.sha256] for file in version.state.files]
    index = {name: at for at, name in enumerate(sorted({place.name for place in mine}))}
    return msgspec.structs.replace(
        version,
        objects=tuple(index),
        at=tuple((index[place.name], place.offset) for place in mine),
    )


def entry_of(version: Version) -> Entry:
    """The pointer's entry for a version."""
    return Entry(
        version=version.version,
        since=0,  # filled in when the set gets its number
        semantic=version.state.digest.semantic,
        size=version.state.size,
        made=version.made,
        confirmed=version.refresh.confirmed if version.refresh else None,
    )


def with_keys(now: Current | None, keys: dict[str, Entry]) -> Current | None:
    """The pointer with other keys; None if every key keeps its version."""
    before = now or pointer.NOTHING
    old = {key: entry.version for key, entry in before.keys.items()}
    if old == {key: entry.version for key, entry in keys.items()}:
        return None
    labels = {key: label for key, label in before.labels.items() if key not in keys}
    return msgspec.structs.replace(before, keys=keys, labels=labels)


def as_confirmed(version: Version, entry: Entry) -> Version:
    """The version with the time at which its system last confirmed it, which the pointer has."""
    refresh = version.refresh or KeyRefresh(version.key, fetched=version.made)
    if entry.confirmed in (None, refresh.confirmed):
        return version
    confirmed = msgspec.structs.replace(refresh, confirmed=entry.confirmed, stale=False)
    return msgspec.structs.replace(version, refresh=confirmed)


def confirm(objects: Objects, states: Iterable[NewState | Version], current: Current) -> None:
    """Records when the external systems were last asked, if that is later than what is recorded,
    or if that is in the future."""
    seen = {
        new.state.key: (new.state.digest.semantic, new.refresh.confirmed)
        for new in states
        if new.refresh and new.refresh.confirmed
    }
    store_clock = functools.cache(lambda: server_time(objects))

    def is_future(moment: str) -> bool:
        """Of a machine whose clock was wrong, which may be this one."""
        at = times.seconds_of(moment)
        return times.is_future(time.time() - at) and times.is_future(store_clock() - at)

    def confirmed(key: str, entry: Entry) -> Entry:
        semantic, moment = seen.get(key, ("", ""))
        before = entry.confirmed or ""
        if semantic != entry.semantic or moment == before:
            return entry
        if moment < before and not is_future(before):
            return entry
        return msgspec.structs.replace(entry, confirmed=moment)

    def decide(now: Current) -> Current | None:
        keys = {key: confirmed(key, entry) for key, entry in now.keys.items()}
        return None if keys == now.keys else msgspec.structs.replace(now, keys=keys)

    if decide(current) is not None:
        pointer.amend(objects, decide)
