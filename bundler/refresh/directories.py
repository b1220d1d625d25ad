"""A state directory on its way to a new set of states: what is decided for each key.

A key is fetched, or the published state (or the given baseline's) is reused. Nothing is visible
before `bundler.state.statedir.publish_together`, which publishes the whole set.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec

from bundler.artifacts.baseline import of_place
from bundler.artifacts.diff import brief
from bundler.artifacts.extract import Extracted
from bundler.errors import BadData, Locked, Unavailable, VerificationFailed
from bundler.listener import KeyProgress, Listener
from bundler.project.options import DEFAULT_TOTAL_TIMEOUT_SECONDS, RefreshOptions, StoredVersions
from bundler.refresh.attempts import Fetched, KeyFailedError, KeyJob, KeyOwner
from bundler.refresh.checks import Baseline
from bundler.refresh.discovery import LoadedSource
from bundler.refresh.keys import unique
from bundler.refresh.model import Component
from bundler.refresh.reporting import tell_fetched
from bundler.refresh.vendors import kind_of
from bundler.state.age import age_problem
from bundler.state.artifact import read_settled
from bundler.state.bundle import Bundle
from bundler.state.directory import StateDirectoryOnDisk
from bundler.state.manifest import (
    Contents,
    DirectoryRefresh,
    KeyRefresh,
    ManagementType,
    Manifest,
    NonLocalKey,
    State,
    build,
)
from bundler.state.statedir import (
    Publication,
    PublishedState,
    Ready,
    Staging,
    StateDir,
    check_keys,
    sanitize_key,
)
from bundler.state.tree import has_dir_hash
from bundler.system.atomic import io_errors
from bundler.system.wording import counted

LOCAL: ManagementType = "LOCAL_FILESYSTEM"
VERSIONED: ManagementType = "VERSIONED_STATE_STORAGE"
_SILENT_SECONDS = 1.0
_LOCK_POLL_SECONDS = 0.1


class Directory(msgspec.Struct):
    """One state directory, the sources that share it, and the decisions for each key.

    baselines: what new states are compared with and may be replaced by, and how those were made
    (record), by key. states, refreshes: what will be published. versions: of keys in versioned
    storage, as it has them now. published_in: where the project's states are, if these are to be
    published elsewhere. shrunk: states that are refused if what they define cannot be counted.
    removed_keys: keys without a component, removed with approval.
    """

    statedir: StateDir
    options: RefreshOptions
    published_in: StateDir | None = None
    shrunk: dict[str, BadData] = msgspec.field(default_factory=dict)
    removed_keys: tuple[str, ...] = ()
    sources: list[LoadedSource] = msgspec.field(default_factory=list)
    components: dict[str, Component] = msgspec.field(default_factory=dict)
    baselines: dict[str, Baseline] = msgspec.field(default_factory=dict)
    record: dict[str, KeyRefresh] = msgspec.field(default_factory=dict)
    states: dict[str, State] = msgspec.field(default_factory=dict)
    refreshes: dict[str, KeyRefresh] = msgspec.field(default_factory=dict)
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    _opened: Staging | None = None
    _before: Manifest | None = None
    _removed_before: tuple[str, ...] = ()

    @property
    def staging(self) -> Staging:
        """Where new states are written; only between `open` and the end of its stack."""
        if self._opened is None:
            raise AssertionError
        return self._opened

    @property
    def local(self) -> tuple[Component, ...]:
        return tuple(c for c in self.components.values() if c.management_type == LOCAL)

    def settle_components(self) -> None:
        """One component per key.

        Raises `ConfigurationError` for impossible keys, `CredentialsRefused` for one that contains
        a secret: keys appear in manifests, logs and names of directories.
        """
        found = [component for item in self.sources for component in item.found.components]
        for component in found:
            if component.refused is not None:
                raise component.refused
        self.components = unique(found)
        check_keys(self.components)

    # --- opening ------------------------------------------------------------------------------

    async def open(
        self,
        stack: AsyncExitStack,
        given: Sequence[Extracted],
        places: Sequence[str],
        listener: Listener,
    ) -> None:
        """Locks the state directory, and finds each key's baseline.

        given: the state directories of the baseline that was named. places: of all directories
        that are refreshed.
        """
        if self._needs_lock():
            self._opened = await self._stage(stack, listener)
        self._before = await self.read_baselines(self.published_in or self.statedir)
        if self.options.baseline is not None:
            place = self.statedir.place
            await self.read_baselines(of_place(given, place, places, self.options.baseline))
        if self.local and not self.baselines:
            listener.note(
                "No baseline: the checks for shrunk states and for removed definitions are off."
            )

    def _needs_lock(self) -> bool:
        """False if nothing is fetched: then the published state most likely stays."""
        options = self.options
        embeds = options.stored is not None and options.stored.embeds
        return (
            embeds
            or self.published_in is not None
            or options.baseline is not None
            or any(options.mode_of(component.key) != "never" for component in self.local)
        )

    async def _stage(self, stack: AsyncExitStack, listener: Listener) -> Staging:
        """Waits for the lock, in a way that Ctrl-C can interrupt."""
        began = time.monotonic()
        told = False
        while True:
            try:
                return stack.enter_context(self.statedir.staging(timeout=0))
            except Locked as error:
                waited = time.monotonic() - began
                if waited > (self.options.total_timeout or DEFAULT_TOTAL_TIMEOUT_SECONDS):
                    raise
                if waited > _SILENT_SECONDS and not told:
                    listener.note(f"{error.what} Waiting for it to finish.")
                    told = True
            await asyncio.sleep(_LOCK_POLL_SECONDS)

    async def read_baselines(self, statedir: StateDir) -> Manifest | None:
        """Takes the valid states of a state directory. Returns its manifest."""
        marked = StateDirectoryOnDisk(statedir.path, statedir.place)
        read = partial(_valid_states, statedir)
        published, valid = await asyncio.to_thread(read_settled, marked, read)
        if published is None:
            return None
        refreshes = published.record.refresh if published.record else ()
        known = {refresh.key: refresh for entry in refreshes for refresh in entry.keys}
        self._removed_before += tuple(key for entry in refreshes for key in entry.removed_keys)
        for key, baseline in valid.items():
            self.baselines[key] = baseline
            self.record[key] = known.get(key, KeyRefresh(key, origin="unknown"))
        return published.manifest

    # --- deciding -----------------------------------------------------------------------------

    def jobs(self, listener: Listener) -> Iterator[KeyJob]:
        """The keys to fetch; the others keep their published state.

        Raises `VerificationFailed` if that is not valid.
        """
        without = 0
        for component in self.local:
            key = component.key
            if self.is_selected(component):
                if self.fetches(key):
                    yield self.job(component, self.baselines.get(key), self)
                else:
                    self._keep(key, listener)
            elif key in self.baselines:  # without any message: the user has named other keys
                self._use_baseline(key)
                self.refreshes[key] = self.record[key]
            else:
                without += 1
        if without:
            keys = counted(without, "unselected key has", "unselected keys have")
            listener.note(f"{keys} no valid state.")

    def fetches(self, key: str) -> bool:
        """Whether a selected key is fetched; otherwise it keeps its published state."""
        mode = self.options.mode_of(key)
        return mode == "always" or (mode == "missing" and key not in self.baselines)

    def is_selected(self, component: Component) -> bool:
        """Whether this key was asked for."""
        keys, types = self.options.keys, self.options.management_types
        return (not keys or component.key in keys) and (
            not types or component.management_type in types
        )

    def job(self, component: Component, baseline: Baseline | None, owner: KeyOwner) -> KeyJob:
        """The job of fetching a key for this directory or another owner."""
        source, options = self.source_of(component), self.options.of_key(component.key)
        is_planned = self.published_in is not None
        return KeyJob(owner, component, source, options, baseline, is_planned)

    def key_directory(self, key: str) -> Path:
        """A new, empty key directory in the staging area."""
        return self.staging.key_directory(key)

    def source_of(self, component: Component) -> LoadedSource:
        return next(item for item in self.sources if component in item.found.components)

    def _keep(self, key: str, listener: Listener) -> None:
        if key not in self.baselines:
            raise VerificationFailed(
                f"{key} has no valid state in {self.statedir.path}, and the refresh mode `never` "
                "does not fetch one.",
                hint=f"Run: state-bundler refresh --key {shlex.quote(key)}",
                key=key,
            )
        state = self._use_baseline(key)
        self.refreshes[key] = self.record[key]
        listener.key(KeyProgress(key, "kept", size=state.size, changed=False))

    def _use_baseline(self, key: str) -> State:
        """Publishes the baseline's bytes for a key."""
        baseline = self.baselines[key]
        if baseline.directory == self.statedir.path / baseline.state.path:
            if self._opened is not None:
                self._opened.discard(key)
        else:
            target = self.key_directory(key)
            with io_errors(target):
                shutil.copytree(baseline.directory, target, symlinks=True, dirs_exist_ok=True)
        self.states[key] = baseline.state
        return baseline.state

    # --- taking over what was fetched ---------------------------------------------------------

    def take(self, job: KeyJob, fetched: Fetched, listener: Listener) -> None:
        """Accepts a fetched state, or the baseline's bytes if they mean the same."""
        key, state = job.component.key, fetched.checked.state
        if fetched.checked.shrunk is not None:
            self.shrunk[key] = fetched.checked.shrunk
        before = job.baseline
        same = before is not None and before.state.digest.semantic == state.digest.semantic
        self.states[key] = self._use_baseline(key) if same else state
        refresh = fetched.refresh_of(key)
        if same and (earlier := self.record[key].fetched):
            refresh = msgspec.structs.replace(refresh, fetched=earlier)
        self.refreshes[key] = refresh
        detail = "unchanged" if same else self._brief(job)
        tell_fetched(key, fetched, self.states[key], listener, detail=detail, changed=not same)

    def _brief(self, job: KeyJob) -> str:
        """What changed since the baseline, such as ``+3 connectors, -1 table``."""
        if job.baseline is None:
            return ""
        staged = self.staging.path / sanitize_key(job.component.key)
        volatile = (*kind_of(job.component).volatile, *job.options.volatile)
        return brief(job.baseline.directory, staged, volatile)

    def take_stale(self, job: KeyJob, failed: KeyFailedError, listener: Listener) -> bool:
        """Uses the baseline instead of an unavailable system, if that is allowed and it is
        recent enough."""
        key, most = job.component.key, self.options.allow_stale
        before = self.record.get(key)
        if most is None or before is None or not isinstance(failed.error, Unavailable):
            return False
        if problem := age_problem(before, most, time.time()):
            listener.note(f"{key}: --allow-stale does not accept the last good state: {problem}.")
            return False
        self._use_baseline(key)
        self.refreshes[key] = msgspec.structs.replace(before, stale=True, attempts=failed.attempts)
        listener.warning(
            f"{failed.error.what} Using the state of {before.confirmed or before.fetched} "
            "because of --allow-stale."
        )
        return True

    def key_directories(self) -> dict[str, Path]:
        """The directory of each key's state that will be published."""
        staged = self._opened.path if self._opened is not None else None
        return {
            key: staged / state.path
            if staged is not None and (staged / state.path).is_dir()
            else self.statedir.path / state.path
            for key, state in self.states.items()
        }

    # --- publishing ---------------------------------------------------------------------------

    def refuse_altered(self) -> None:
        """Raises `InputOutputError` for a state that is no longer what was checked."""
        self.staging.refuse_altered(tuple(self.states.values()))

    def ready(self) -> Ready:
        """Writes what was decided to disk, next to what is published."""
        states = tuple(self.states.values())
        return self.staging.ready(states, self._non_local(), self._refresh())

    async def stage_unless_unchanged(
        self, stack: AsyncExitStack, listener: Listener
    ) -> Publication | None:
        """The published set, if nothing has to be written because exactly that is to be published.

        None if there is something to publish; the state directory is locked then. Raises `Locked`
        if another process has published meanwhile.
        """
        before = self._before
        if self._opened is not None:
            return None
        wanted = build(Contents(tuple(self.states.values()), self._non_local()))
        if before is not None and wanted.content_digest == before.content_digest:
            bundle = Bundle(self.statedir.path, before, self.statedir.place)
            return Publication(bundle, self._refresh().of(before), (), ())
        self._opened = await self._stage(stack, listener)
        now = self.statedir.read()
        if (now and now.manifest.sha256) != (before and before.sha256):
            raise Locked(
                f"Another process published in {self.statedir.path} in the meantime.",
                hint="Try again.",
            )
        return None

    def changed_by(self, publication: Publication) -> Iterator[str]:
        """The keys whose states differ from before: a baseline may be what was published."""
        before = {state.key: state.digest for state in self._before.states} if self._before else {}
        for state in publication.bundle.manifest.states:
            if state.path in publication.changed and before.get(state.key) != state.digest:
                yield state.key

    def _refresh(self) -> DirectoryRefresh:
        keys = sorted(self.refreshes.values(), key=lambda item: item.key)
        is_kept = all(self.record.get(item.key) == item for item in keys)
        removed = {*self.removed_keys, *(self._removed_before if is_kept else ())}
        return DirectoryRefresh(
            self.statedir.place, tuple(keys), removed_keys=tuple(sorted(removed))
        )

    def report(self, publication: Publication, listener: Listener) -> None:
        """Says what was removed from the state directory, and what else is in it."""
        known = {sanitize_key(key) for key in self.components}
        for name in publication.removed:
            why = "it is not embedded" if name in known else "no component has that key"
            listener.note(f"Removed {name}: {why} any more.")
        if publication.others:
            listener.warning(
                f"{self.statedir.path} also contains {', '.join(publication.others)}, which "
                "state-bundler did not publish: it is kept and not embedded."
            )

    # --- versioned storage --------------------------------------------------------------------

    async def take_stored(self, listener: Listener) -> None:
        """Asks the storage for the versions of its keys, and embeds their states if requested.

        Raises what the storage raises.
        """
        stored = self.options.stored
        for component in self.components.values():
            if component.management_type != VERSIONED:
                continue
            if stored is not None:
                await asyncio.to_thread(self._take_stored, component.key, stored, listener)
            elif self.is_selected(component):
                listener.note(
                    f"{component.key} is {VERSIONED}: not embedded and not refreshed here."
                )

    def _take_stored(self, key: str, stored: StoredVersions, listener: Listener) -> None:
        found = stored.state(key)
        if found is None:
            listener.note(f"{key} is in versioned storage, which has no version of it yet.")
            return
        state, refresh = found
        self.versions[key] = str(state.version)
        if not stored.embeds:
            listener.note(
                f"{key} stays in versioned storage; the manifest records version {state.version}."
            )
            return
        before = self.baselines.get(key)
        if before is not None and before.state.digest.dir_hash == state.digest.dir_hash:
            self._use_baseline(key)
        else:
            stored.pull(key, self.key_directory(key))
        self.states[key], self.refreshes[key] = state, refresh
        listener.note(f"{key}: version {state.version} from versioned storage is embedded.")

    def _non_local(self) -> tuple[NonLocalKey, ...]:
        return tuple(
            NonLocalKey(component.key, component.management_type, self.versions.get(component.key))
            for component in self.components.values()
            if component.management_type != LOCAL and component.key not in self.states
        )


def _valid_states(statedir: StateDir) -> tuple[PublishedState | None, dict[str, Baseline]]:
    published = statedir.read()
    states = published.manifest.states if published else ()
    found = [Baseline(state, statedir.path / state.path) for state in states]
    valid = [it for it in found if has_dir_hash(it.directory, it.state.digest.dir_hash)]
    return published, {it.state.key: it for it in valid}
