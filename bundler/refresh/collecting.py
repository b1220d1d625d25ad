"""States that are fetched without being published: for a store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bundler.listener import Listener
from bundler.refresh.attempts import Fetched, KeyFailedError, KeyJob
from bundler.refresh.directories import Directory
from bundler.refresh.model import Component
from bundler.refresh.reporting import tell_fetched
from bundler.state.manifest import KeyRefresh, ManagementType, State
from bundler.state.statedir import sanitize_key
from bundler.system.atomic import io_errors


class Collected(msgspec.Struct, frozen=True):
    """A state that was fetched without being published in a state directory.

    place: of the state directory that its key belongs to. directory: its key directory.
    """

    place: str
    component: Component
    directory: Path
    state: State
    refresh: KeyRefresh


class Collector(msgspec.Struct):
    """Collects fetched states of a directory's keys of some management types."""

    folder: Path
    of: Directory
    types: Sequence[ManagementType]
    collected: list[Collected] = msgspec.field(default_factory=list)

    def jobs(self) -> Iterator[KeyJob]:
        """The selected keys."""
        for component in self.of.components.values():
            if component.management_type in self.types and self.of.is_selected(component):
                yield self.of.job(component, None, self)

    def key_directory(self, key: str) -> Path:
        target = self.folder / sanitize_key(key)
        with io_errors(target):
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
        return target

    def take(self, job: KeyJob, fetched: Fetched, listener: Listener) -> None:
        """Keeps a fetched state."""
        key, state = job.component.key, fetched.checked.state
        directory = self.folder / sanitize_key(key)
        place = self.of.statedir.place
        refresh = fetched.refresh_of(key)
        self.collected.append(Collected(place, job.component, directory, state, refresh))
        tell_fetched(key, fetched, state, listener)

    def take_stale(self, _job: KeyJob, _failed: KeyFailedError, _listener: Listener) -> bool:
        """Does nothing: the storage keeps its latest version."""
        return False


def collectors_of(
    folder: Path, directories: Sequence[Directory], types: Sequence[ManagementType]
) -> list[Collector]:
    """One for each directory, each with its own part of the folder."""
    return [Collector(folder / str(n), item, types) for n, item in enumerate(directories)]


def jobs_of(collectors: Sequence[Collector]) -> list[KeyJob]:
    return [job for collector in collectors for job in collector.jobs()]


def collected_of(collectors: Sequence[Collector]) -> tuple[Collected, ...]:
    return tuple(item for collector in collectors for item in collector.collected)
