"""A store as an artifact that is open for reading: for verify, diff, status, extract, baselines.

Its state directories are the places that the states were pushed from; states that were pushed
without one (by Dagster) share ``.local_defs_state``.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from bundler.errors import UsageError
from bundler.project.config import STORE_VARIABLE, load
from bundler.state.artifact import Artifact, Member
from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY
from bundler.state.manifest import (
    Contents,
    DirectoryRefresh,
    KeyRefresh,
    Manifest,
    RunRecord,
    build,
)
from bundler.state.run_record import STORE
from bundler.store import content, records
from bundler.store.content import Piece
from bundler.store.objects import Objects
from bundler.store.records import Version
from bundler.store.store import Store, open_store
from bundler.system.readable import stream_of

_MOMENT = (
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]+"
    r"|[0-9]{4}-[0-9-]+[Tt][0-9:.]+([Zz]|[+-][0-9:]+)"
)
_NAME = re.compile(rf"(?P<url>.*?)(@(?P<moment>{_MOMENT}))?")


def open_stored(name: str) -> StoredStates:
    """The states behind ``store:[URL][@WHEN]``.

    WHEN: a version, a set's number or an RFC 3339 time; the newest set without one. A name
    without a URL means the environment's store, else that which the project in the current
    directory configures. Raises `UsageError`, `ConfigurationError`.
    """
    found = _NAME.fullmatch(name.removeprefix(STORE))
    url, moment = (found["url"], found["moment"]) if found else ("", None)
    where = url or os.environ.get(STORE_VARIABLE) or load(Path()).store
    if not where:
        raise UsageError(
            f"{name} does not specify a store.",
            hint='Use store:s3://bucket/prefix, or configure it: store = "s3://…" in '
            "[tool.state-bundler].",
        )
    store = open_store(where)
    told = f"{STORE}{store.url}{f'@{moment}' if moment else ''}"
    return StoredStates(told, store, versions_at(store, moment))


def versions_at(store: Store, moment: str | None) -> dict[str, Version]:
    """The versions by key at a given time; see `open_stored`. None: the current ones."""
    if moment is None:
        return store.currents()
    if records.is_version(moment):
        version = store.version(moment)
        return {version.key: version}
    return store.all_of(store.at(moment)[1])


class StoredStates(Artifact):
    """`bundler.state.artifact.Artifact` over some versions of a store."""

    kind = "store"

    def __init__(self, name: str, store: Store, versions: Mapping[str, Version]) -> None:
        self.name = name
        self._store = store
        self._directories = tuple(
            _StoredDirectory(store.objects, place, members)
            for place, members in sorted(by_place(versions.values()).items())
        )

    def kept(self) -> list[Version]:
        """All versions that the store keeps, not only those of this artifact."""
        return self._store.kept()

    def run_record(self) -> RunRecord | None:
        """How each state was made; its origin names the version that it came from."""
        return RunRecord(refresh=tuple(item.refresh for item in self._directories))

    def state_directories(self) -> Sequence[_StoredDirectory]:
        return self._directories


def by_place(versions: Iterable[Version]) -> dict[str, list[Version]]:
    """The versions by the state directory that they belong to."""
    places: dict[str, list[Version]] = {}
    for version in versions:
        places.setdefault(version.place or STATE_DIRECTORY, []).append(version)
    return places


def refresh_of(version: Version) -> KeyRefresh:
    """The run record's entry for a state from a store."""
    known = version.refresh or KeyRefresh(version.key, fetched=version.made)
    return msgspec.structs.replace(known, origin=f"{STORE}{version.version}")


class _StoredDirectory:
    """The states of one place, as a state directory."""

    sealed = concurrent = False

    def __init__(self, objects: Objects, path: str, versions: Sequence[Version]) -> None:
        self._objects = objects
        self.path = path
        self._versions = versions
        self.manifest = manifest_of(versions)

    @property
    def refresh(self) -> DirectoryRefresh:
        keys = sorted(map(refresh_of, self._versions), key=lambda refresh: refresh.key)
        return DirectoryRefresh(self.path, tuple(keys)).of(self.manifest)

    def read_manifest(self) -> bytes | None:
        return self.manifest.raw

    def members(self) -> Iterator[Member]:
        raw = self.manifest.raw
        yield Member(MANIFEST_NAME, "file", len(raw), partial(io.BytesIO, raw))
        for version in self._versions:
            for file, piece in content.pieces(version):
                opened = partial(_open, self._objects, piece)
                yield Member(f"{version.state.path}/{file.path}", "file", file.size, opened)


def manifest_of(versions: Sequence[Version]) -> Manifest:
    return build(Contents(tuple(version.state for version in versions)))


def _open(objects: Objects, piece: Piece) -> BinaryIO:
    if piece.size <= content.CHUNK_BYTES:
        return io.BytesIO(content.read_piece(objects, piece))
    return stream_of(content.read_file(objects, piece))
