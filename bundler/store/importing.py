"""Imports what Dagster's own `UPathDefsStateStorage` has written: ``<key>/<version>``, one file.

Dagster records in its instance's database which version of a key is the latest, and derives the
folder names of keys irreversibly. The caller names both, or only the keys, and then the newest file
of each is the latest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import ConfigurationError, UsageError, VerificationFailed
from bundler.state.manifest import KeyRefresh, state_of
from bundler.state.statedir import sanitize_key
from bundler.state.tree import scan
from bundler.store import records
from bundler.store.objects import Buffer, Listed, Objects
from bundler.store.pointer import NOBODY, Author
from bundler.store.pushing import NewState
from bundler.store.store import Store
from bundler.system.times import rfc3339

_CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Imported:
    """versions: by key, the oldest first. unknown: folders whose key nobody has named."""

    versions: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]


def import_dagster(
    source: Objects,
    target: Store,
    keys: Iterable[str],
    *,
    latest: Mapping[str, str] | None = None,
    author: Author = NOBODY,
) -> Imported:
    """Imports every version of these keys into a store, in the order in which they were written.

    latest: the version to make current, by key, from Dagster's instance; else the newest. Raises
    `ConfigurationError`, before anything is imported, for a key or a version that is not there.
    """
    found, named, keys = _by_folder(source), latest or {}, set(keys)
    for key in sorted(named.keys() - keys):
        raise UsageError(f"{key} has a latest version, but is not imported.", key=key)
    wanted = {
        key: _in_order(source, key, found.pop(sanitize_key(key), []), named.get(key))
        for key in sorted(keys)
    }
    for key, files in wanted.items():
        for item in files:
            _import_one(source, target, key, item, author)
        if key in named:
            target.adopt([target.version(_version(files[-1]))], "import", author)
    versions = {key: tuple(map(_version, files)) for key, files in wanted.items()}
    return Imported(versions, tuple(sorted(found)))


def _in_order(source: Objects, key: str, files: list[Listed], latest: str | None) -> list[Listed]:
    """A key's versions, the oldest first, except for the one that is to become current."""
    if not files or (latest and latest not in map(_version, files)):
        raise ConfigurationError(
            f"{source.url} contains {f'no version {latest}' if files else 'nothing'} for {key}.",
            hint="Check the key and the URL, which is the storage's base path.",
            key=key,
        )
    return sorted(files, key=lambda item: (_version(item) == latest, item.modified, item.name))


def _by_folder(source: Objects) -> dict[str, list[Listed]]:
    found: dict[str, list[Listed]] = {}
    for item in source.list(""):
        folder, _, version = item.name.rpartition("/")
        if folder and "/" not in folder and records.is_version(version):
            found.setdefault(folder, []).append(item)
    return found


def _version(item: Listed) -> str:
    return item.name.rpartition("/")[2]


def _import_one(source: Objects, target: Store, key: str, item: Listed, author: Author) -> None:
    if target.known.find(_version(item)) is not None:
        return
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        directory = Path(scratch)
        with open(directory / "state", "xb") as stream:
            stream.writelines(_chunks(source, item))
            if stream.tell() != item.size:
                raise VerificationFailed(
                    f"{source.url}/{item.name} changed while it was read.",
                    hint="Try again.",
                    key=key,
                )
        state = state_of(key, sanitize_key(key), scan(directory))
        refresh = KeyRefresh(key, fetched=rfc3339(item.modified), origin="dagster")
        new = NewState(state, directory, refresh=refresh, version=_version(item))
        target.push([new], author)


def _chunks(source: Objects, item: Listed) -> Iterator[Buffer]:
    for start in range(0, item.size, _CHUNK_BYTES):
        yield source.read(item.name, start, min(_CHUNK_BYTES, item.size - start))
