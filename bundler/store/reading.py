"""Finds versions by their UUIDs, and downloads their state trees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bundler.store import content, records
from bundler.store.objects import Objects
from bundler.store.records import Batch, Version

_AT_ONCE = 16


@dataclass(frozen=True)
class Versions:
    """The versions of a store, cached, since no version ever changes."""

    objects: Objects
    _known: dict[str, dict[str, Version]] = field(default_factory=dict, compare=False)

    def find(self, version: str) -> Version | None:
        """None if the store has no such version."""
        return self._batch(records.batch_name(version)).get(version)

    def find_all(self, wanted: Iterable[str]) -> dict[str, Version]:
        """The versions that exist, read in parallel."""
        ids = list(wanted)
        names = sorted({records.batch_name(version) for version in ids})
        content.in_parallel([partial(self._batch, name) for name in names], _AT_ONCE)
        found = ((version, self.find(version)) for version in ids)
        return {version: item for version, item in found if item is not None}

    def remember(self, name: str, batch: Batch) -> None:
        self._known[name] = {version.version: version for version in batch.versions}

    def _batch(self, name: str) -> dict[str, Version]:
        if name not in self._known:
            stored = self.objects.get(name)
            if stored is None:
                return {}
            self.remember(name, records.read_batch(stored.data, name, self.objects.url))
        return self._known[name]

    def pull(self, wanted: Iterable[tuple[Version, Path]]) -> None:
        """Writes each version's state tree into a key directory, verified as it is written.

        Raises `VerificationFailed` for content that is missing or was altered; the caller then
        removes the directories.
        """
        content.download(
            self.objects,
            (
                (piece, directory / file.path)
                for version, directory in wanted
                for file, piece in content.pieces(version)
            ),
        )
