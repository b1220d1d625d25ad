"""A store as people use it: push, pull, look back, roll back, pin."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bundler.errors import ConfigurationError, UsageError, VerificationFailed
from bundler.state.bundle import is_at
from bundler.store import pointer, records
from bundler.store.objects import SCHEMES, Objects, shown
from bundler.store.pointer import NOBODY, Author
from bundler.store.pushing import (
    NewState,
    Push,
    PushedStates,
    as_confirmed,
    confirm,
    entry_of,
    with_keys,
)
from bundler.store.reading import Versions
from bundler.store.records import Action, Change, Current, Entry, Move, Pin, Version
from bundler.system import times
from bundler.system.installed import installed
from bundler.system.wording import nearest

_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Store:
    """An open store. Opening it sends no request."""

    objects: Objects
    known: Versions

    @property
    def url(self) -> str:
        return self.objects.url

    def command(self, words: str) -> str:
        """A ``state-bundler store`` command about this store that works anywhere."""
        return f"state-bundler store {words} --store {shlex.quote(self.url)}"

    def current(self) -> Current | None:
        """The newest set; None if nothing was ever pushed."""
        return pointer.read(self.objects)

    def require_current(self) -> Current:
        """The newest set. Raises `UsageError` if nothing was ever pushed."""
        current = self.current()
        if current is None:
            raise UsageError(
                f"{self.url} contains no state yet.", hint=f"Push states: {self.command('push')}"
            )
        return current

    # --- into the store -----------------------------------------------------------------------

    def push(self, states: Sequence[NewState], author: Author = NOBODY) -> PushedStates:
        """Makes the states the current versions of their keys, atomically.

        A state with the same meaning as its key's current version is not uploaded, and the key
        keeps that version. Raises `VerificationFailed` if a file changes meanwhile; nothing is
        visible then, as after any other failure.
        """
        return Push(self.known, states, author).run()

    def adopt(
        self,
        versions: Collection[Version],
        action: Action,
        author: Author = NOBODY,
        gone: Collection[str] = (),
    ) -> Current:
        """Makes versions that are already in the store the current ones of their keys.

        gone: keys that have none any more.
        """

        def decide(now: Current | None) -> Current | None:
            before = now.keys if now else {}
            keys = {key: entry for key, entry in before.items() if key not in gone}
            for version in versions:
                _refuse_retired(now, version.version)
                keys[version.key] = entry_of(version)
            return with_keys(now, keys)

        return pointer.advance(self.objects, action, author, decide)

    def confirm(self, versions: Iterable[Version]) -> None:
        """Records when external systems last confirmed these versions; see `pushing.confirm`."""
        confirm(self.objects, versions, self.require_current())

    def remove(self, keys: Iterable[str], author: Author = NOBODY) -> Current:
        """Leaves keys without a current version; their old versions stay until they are pruned."""
        return self.adopt((), "remove", author, frozenset(keys))

    def label(self, key: str, label: str | None, author: Author = NOBODY) -> Current:
        """Records Dagster's note for a key whose state is elsewhere, instead of a version.

        None removes the key.
        """

        def decide(now: Current | None) -> Current | None:
            before = now or pointer.NOTHING
            keys = {name: entry for name, entry in before.keys.items() if name != key}
            labels = {name: item for name, item in before.labels.items() if name != key}
            if label is not None:
                labels[key] = label
            if (keys, labels) == (before.keys, before.labels):
                return None
            return msgspec.structs.replace(before, keys=keys, labels=labels)

        return pointer.advance(self.objects, "push", author, decide)

    # --- out of the store ---------------------------------------------------------------------

    def version(self, version: str) -> Version:
        """A version by its UUID. Raises `UsageError` if the store does not have it."""
        found = self.known.find(version) if records.is_version(version) else None
        if found is None:
            raise UsageError(
                f"{self.url} has no version {version}.",
                hint=f"List the versions: {self.command('list --all-versions')}",
            )
        return found

    def currents(self, keys: Iterable[str] | None = None) -> dict[str, Version]:
        """The current versions of these keys, or of all, with the time of the last confirmation.

        Raises as `current_ids` does, and `VerificationFailed` if the pointer names a version that
        does not exist.
        """
        entries = self._entries(keys)
        found = self.all_of({key: entry.version for key, entry in entries.items()})
        return {key: as_confirmed(found[key], entry) for key, entry in entries.items()}

    def current_ids(self, keys: Iterable[str] | None = None) -> dict[str, str]:
        """The UUIDs of the current versions of these keys, or of all.

        Raises `UsageError` for a key that has none.
        """
        return {key: entry.version for key, entry in self._entries(keys).items()}

    def _entries(self, keys: Iterable[str] | None) -> dict[str, Entry]:
        current = self.current()
        have = current.keys if current else {}
        wanted = list(have if keys is None else dict.fromkeys(keys))
        for key in wanted:
            if key not in have:
                near = nearest(key, have)
                raise UsageError(
                    f"{self.url} has no current version of {key}.",
                    hint=f"Did you mean {near!r}?" if near else f"Push one: {self.command('push')}",
                    key=key,
                )
        return {key: have[key] for key in wanted}

    def all_of(self, wanted: Mapping[str, str]) -> dict[str, Version]:
        """Versions by key. Raises `VerificationFailed` if one does not exist."""
        found = self.known.find_all(wanted.values())
        for key, version in wanted.items():
            if version not in found:
                raise VerificationFailed(
                    f"{self.url} has no version {version} of {key} any more.",
                    hint="It was pruned or lost. Roll back to another version, or remove the key "
                    f"and push it again: {self.command(f'remove {shlex.quote(key)}')}",
                    key=key,
                )
        return {key: found[version] for key, version in wanted.items()}

    def displaced(self, moves: Iterable[Move]) -> Iterator[str]:
        """Keys whose version before was of another state directory, as messages: a store that two
        projects share has one state for both."""
        pairs = [(move.before, move.after) for move in moves if move.before and move.after]
        found = self.known.find_all({version for pair in pairs for version in pair})
        for before, after in pairs:
            if before not in found or after not in found:
                continue
            old, new = found[before].place, found[after].place
            if old and new and not (is_at(old, new) or is_at(new, old)):
                yield (
                    f"{found[after].key} was the state of {old} and is now that of {new}, for both "
                    "of them. If they are not the same, use a store for each project, and go back: "
                    f"{self.command(f'rollback --at {before}')}"
                )

    # --- back in time -------------------------------------------------------------------------

    def history(self) -> Iterator[Change]:
        """Every set that is kept, the newest first."""
        current = self.current()
        return iter(()) if current is None else pointer.history(self.objects, current)

    def kept(self) -> list[Version]:
        """Every version that a current or kept set names, or a pin; the newest of a key first."""
        current = self.require_current()
        wanted = [entry.version for entry in current.keys.values()]
        wanted += [pin.version for pin in current.pins]
        for change in self.history():
            wanted += [item for move in change.moves for item in (move.after, move.before) if item]
        return by_key(self.known.find_all(dict.fromkeys(wanted)).values())

    def at(self, moment: str | int) -> tuple[int, dict[str, str]]:
        """The number of a set, and the version that each key had in it.

        moment: a set's number, or an RFC 3339 time, which means the set that was current then.
        Raises `UsageError` for anything else, for a number that no set has yet, and for anything
        older than the oldest set that is kept, unless it is the one before that and its versions
        are still there.
        """
        current = self.require_current()
        moment = _number_or_time(moment)
        if isinstance(moment, int) and moment > current.number:
            raise UsageError(
                f"{self.url} has no set {moment}; its newest set is number {current.number}.",
                hint=f"List the sets: {self.command('list --sets')}",
            )
        passed: list[Change] = []
        for change in pointer.history(self.objects, current):
            passed.append(change)
            if (change.number <= moment) if isinstance(moment, int) else (change.made <= moment):
                return change.number, pointer.keys_at(current, passed, change.number)
        # The oldest set says what it replaced; all of that may be pinned, for example.
        before = pointer.keys_at(current, passed, current.oldest - 1)
        is_next = isinstance(moment, int) and 0 < moment == current.oldest - 1
        if is_next and len(self.known.find_all(before.values())) == len(before):
            return current.oldest - 1, before
        raise UsageError(
            f"{self.url} has no set from {moment}; its oldest set is number {current.oldest}.",
            hint=f"List the sets: {self.command('list --sets')}",
        )

    def rollback(
        self, to: str | int | None = None, keys: Sequence[str] = (), author: Author = NOBODY
    ) -> Current:
        """Makes an earlier set, or an earlier version of one key, current again, as a new set.

        to: a version's UUID, a time, a set's number; None for the set before the newest. keys: only
        these. Raises `UsageError` if it is not kept any more.
        """
        if isinstance(to, str) and records.is_version(to):
            version = self.version(to)
            if keys and list(keys) != [version.key]:
                raise UsageError(
                    f"Version {to} is one of {version.key}, not of {', '.join(keys)}.",
                    hint="Remove --key.",
                )
            return self.adopt([version], "rollback", author)
        current = self.require_current()
        number, then = self.at(current.number - 1 if to is None else to)
        unknown = [key for key in keys if key not in then]
        if unknown:
            raise UsageError(
                f"{', '.join(unknown)} had no version in set {number}.",
                hint=f"List the sets: {self.command('list --sets')}",
            )
        have = {key: entry.version for key, entry in current.keys.items()}
        wanted = {key: then[key] for key in (keys or then) if have.get(key) != then[key]}
        gone = () if keys else have.keys() - then.keys()
        return self.adopt(self.all_of(wanted).values(), "rollback", author, gone)

    # --- pins ---------------------------------------------------------------------------------

    def pin(self, version: str, note: str = "") -> Current:
        """Protects a version from every prune. Raises `UsageError` if it does not exist."""
        found = self.version(version)

        def decide(now: Current) -> Current | None:
            _refuse_retired(now, version)
            if any(pin.version == version for pin in now.pins):
                return None
            return msgspec.structs.replace(now, pins=(*now.pins, Pin(version, found.key, note)))

        return pointer.amend(self.objects, decide)

    def unpin(self, version: str) -> Current:
        """Allows a version to be pruned again."""

        def decide(now: Current) -> Current | None:
            left = tuple(pin for pin in now.pins if pin.version != version)
            return None if left == now.pins else msgspec.structs.replace(now, pins=left)

        return pointer.amend(self.objects, decide)


def by_key(versions: Iterable[Version]) -> list[Version]:
    """The versions, sorted by key, the newest first."""
    newest = sorted(versions, key=lambda version: version.made, reverse=True)
    return sorted(newest, key=lambda version: version.key)


def _number_or_time(moment: str | int) -> str | int:
    """As the pointer has them."""
    if isinstance(moment, int) or _NUMBER.fullmatch(moment):
        return int(moment)
    try:
        return times.utc(moment)
    except ValueError:
        raise UsageError(
            f"{moment!r} is neither the number of a set nor a time.",
            hint="Write a time with its offset, such as 2026-05-01T00:00:00Z.",
        ) from None


def _refuse_retired(now: Current | None, version: str) -> None:
    if now is not None and version in now.retired:
        raise UsageError(f"Version {version} is being pruned.", hint="Choose another version.")


def open_store(url: str, patience: float | None = None) -> Store:
    """The store at a URL; sends no request yet. Raises `ConfigurationError`.

    patience: for how many seconds a bucket that does not answer is retried.
    """
    objects = open_objects(url, patience)
    return Store(objects, Versions(objects))


def open_objects(url: str, patience: float | None = None) -> Objects:
    """The bucket or folder at a URL: ``s3://bucket/prefix``, ``gs://…``, ``az://…``, ``file:///…``.

    patience: for how many seconds a bucket that does not answer is retried. Raises
    `ConfigurationError` for any other URL, or if the extra for it is not installed.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES or not rest.strip("/"):
        raise ConfigurationError(
            f"{shown(url)!r} is not a store.",
            hint="Use s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or "
            "file:///a/folder.",
        )
    if scheme == "file":
        from bundler.store.folder import Folder

        return Folder.of_url(url)
    try:
        from bundler.store.remote import Bucket
    except ImportError:
        raise ConfigurationError(
            f"{shown(url).rstrip('/')} requires obstore, which is not installed.",
            hint=f"Install it: {installed().command('store')}",
        ) from None
    return Bucket(url) if patience is None else Bucket(url, patience)
