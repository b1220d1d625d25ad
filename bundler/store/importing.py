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

from bundler.errors import ConfigurationError
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
    `ConfigurationError` for a key without any version there.
    """
    found = _by_folder(source)
    done: dict[str, tuple[str, ...]] = {}
    for key in sorted(set(keys)):
        files = found.pop(sanitize_key(key), [])
        if not files:
            raise ConfigurationError(
                f"{source.url} contains nothing for {key}.",
                hint="Check the key and the URL, which is the storage's base path.",
                key=key,
            )
        wanted = (latest or {}).get(key)
        files.sort(key=lambda item: (_version(item) == wanted, item.modified, item.name))
        for item in files:
            _import_one(source, target, key, item, author)
        done[key] = tuple(map(_version, files))
    return Imported(done, tuple(sorted(found)))


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
        state = state_of(key, sanitize_key(key), scan(directory))
        refresh = KeyRefresh(key, fetched=rfc3339(item.modified), origin="dagster")
        new = NewState(state, directory, refresh=refresh, version=_version(item))
        target.push([new], author)


def _chunks(source: Objects, item: Listed) -> Iterator[Buffer]:
    for start in range(0, item.size, _CHUNK_BYTES):
        yield source.read(item.name, start, min(_CHUNK_BYTES, item.size - start))
