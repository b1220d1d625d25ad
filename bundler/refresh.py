"""Refreshes the states of projects: all of them, or nothing.

1. Every source tells its components, in the project's own interpreter.
2. Each state directory is locked, and an interrupted publish finished.
3. Each key that is to be fetched is written into the staging area by a process of its own.
4. What was written is judged (`bundler.checks`).
5. Only if every key succeeded, each state directory gets its new set of states at once.
"""

from __future__ import annotations

import asyncio
import calendar
import functools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bundler import __version__
from bundler.atomic import io_errors
from bundler.attempts import Fetched, Job, KeyFailedError, fetch
from bundler.bundle import Bundle
from bundler.checks import Baseline, kind_of
from bundler.discovery import Loaded, load_all, unique
from bundler.errors import (
    BundlerError,
    ConfigurationError,
    Interrupted,
    Locked,
    Unavailable,
    VerificationFailed,
    raise_all,
)
from bundler.listener import KeyProgress, Listener
from bundler.manifest import (
    DirectoryRefresh,
    KeyRefresh,
    Manifest,
    NonLocalKey,
    RunRecord,
    State,
    Tool,
)
from bundler.options import DEFAULT_JOBS, DEFAULT_TOTAL_TIMEOUT_SECONDS, RefreshOptions
from bundler.sources import Component, Found
from bundler.statedir import Published, Staging, StateDir, check_keys
from bundler.tree import scan

if TYPE_CHECKING:
    from bundler.project import Project

_LOCK_SECONDS = 10.0
_LOCK_POLL_SECONDS = 0.1
_LEGACY = "LEGACY_CODE_SERVER_SNAPSHOTS"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did. bundles: one a state directory, published. changed: those keys whose
    bytes are others than before."""

    bundles: tuple[Bundle, ...]
    record: tuple[DirectoryRefresh, ...]
    found: tuple[Found, ...]
    changed: tuple[str, ...] = ()


@dataclass
class _Directory:
    """One state directory on its way: what it has, and what becomes of each key."""

    statedir: StateDir
    options: RefreshOptions
    sources: list[Loaded]
    components: dict[str, Component] = field(default_factory=dict)
    owners: dict[str, Loaded] = field(default_factory=dict)
    published: Published | None = None
    record: dict[str, KeyRefresh] = field(default_factory=dict)
    staging: Staging | None = None
    baselines: dict[str, Baseline] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    refreshes: dict[str, KeyRefresh] = field(default_factory=dict)

    @property
    def local(self) -> Iterator[Component]:
        return (c for c in self.components.values() if c.management_type == "LOCAL_FILESYSTEM")


def discover(projects: Sequence[Project], listener: Listener) -> tuple[Found, ...]:
    """What the sources of the projects have, one value a source; refreshes nothing."""
    return _run(_discover(projects, listener))


def refresh(projects: Sequence[Project], options: RefreshOptions, listener: Listener) -> Refreshed:
    """Refreshes and publishes. options: those of the command line; they go before the projects'.

    Raises the failure of a key, or `Several`; nothing was published then.
    """
    return _run(_refresh(projects, options, listener))


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """Runs to the end, or until SIGINT or SIGTERM: then everything is ended and put away."""
    received: list[int] = []

    async def main() -> _T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)

        def stop(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            # Not in another thread than the main one, where signals arrive anyway.
            with suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, stop, number)
        return await task

    before = _handlers()
    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise Interrupted(received[0] if received else signal.SIGINT) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handlers() -> dict[int, Any]:
    import threading

    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


async def _discover(projects: Sequence[Project], listener: Listener) -> tuple[Found, ...]:
    async with _loaded(projects, RefreshOptions(), listener) as (loaded, _):
        return tuple(item.found for item in loaded)


@asynccontextmanager
async def _loaded(
    projects: Sequence[Project], options: RefreshOptions, listener: Listener
) -> AsyncIterator[tuple[list[Loaded], Path]]:
    """The sources with their workers, which end with the context, and a private scratch folder."""
    scratch = Path(tempfile.mkdtemp(prefix="state-bundler-"))
    loaded: list[Loaded] = []
    try:
        await load_all(
            projects, scratch, loaded, named=options.secrets, excluded=options.not_secrets
        )
        for warning in (text for item in loaded for text in item.found.warnings):
            listener.warning(warning)
        yield loaded, scratch
    finally:
        await asyncio.gather(*(item.worker.close() for item in loaded))
        shutil.rmtree(scratch, ignore_errors=True)


async def _refresh(
    projects: Sequence[Project], options: RefreshOptions, listener: Listener
) -> Refreshed:
    listener.phase("Finding components")
    async with _loaded(projects, options, listener) as (loaded, scratch), AsyncExitStack() as stack:
        directories = _directories(loaded, options)
        _check_selection(options, directories)
        for directory in directories:
            await _open(directory, stack, listener)
            _tell_non_local(directory, listener)
        jobs = [job for directory in directories for job in _jobs(directory, listener)]
        await _fetch_all(jobs, directories, options, scratch, listener)
        return _publish(directories, loaded, listener)


def _directories(loaded: Sequence[Loaded], options: RefreshOptions) -> list[_Directory]:
    """The sources by the state directory that they share."""
    by_path: dict[Path, _Directory] = {}
    for item in loaded:
        found = item.found
        directory = by_path.setdefault(
            found.directory,
            _Directory(
                StateDir(found.directory, found.place),
                options.over(item.source.project.config.refresh),
                [],
            ),
        )
        directory.sources.append(item)
        for component in found.components:
            directory.owners.setdefault(component.key, item)
    for directory in by_path.values():
        directory.components = unique(
            [component for item in directory.sources for component in item.found.components]
        )
        check_keys(directory.components)
    return [
        directory
        for directory in by_path.values()
        if directory.components or directory.statedir.path.exists()
    ]


def _check_selection(options: RefreshOptions, directories: Sequence[_Directory]) -> None:
    import difflib

    known = {key for directory in directories for key in directory.components}
    for key in options.keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigurationError(
                f"No component has the key {key!r}.",
                hint=f"Did you mean {near[0]!r}?"
                if near
                else f"Known: {', '.join(sorted(known))}.",
                key=key,
            )


async def _open(directory: _Directory, stack: AsyncExitStack, listener: Listener) -> None:
    """Locks the state directory, and finds out what each key is to be held against."""
    statedir = directory.statedir
    directory.staging = await _stage(statedir, stack)
    directory.published = await _read_baselines(directory, statedir)
    given = directory.options.baseline
    if given is not None:
        inside = given / statedir.place
        other = StateDir(inside if inside.is_dir() else given, statedir.place)
        if await _read_baselines(directory, other) is None:
            raise ConfigurationError(
                f"The baseline {given} holds no manifest.",
                hint="Name a directory that state-bundler has published or extracted.",
            )
    if not directory.baselines and any(directory.local):
        listener.note("No baseline: the check for shrunk states is off.")


async def _read_baselines(directory: _Directory, statedir: StateDir) -> Published | None:
    """Takes the states of a state directory that verify as what new ones are held against."""
    published = statedir.read()
    if published is None:
        return None
    for state in published.manifest.states:
        path = statedir.path / state.path
        if await asyncio.to_thread(_verifies, state, path):
            directory.baselines[state.key] = Baseline(state, path)
            known = published.record.key(statedir.place, state.key) if published.record else None
            directory.record.pop(state.key, None)
            if known is not None:
                directory.record[state.key] = known
    return published


async def _stage(statedir: StateDir, stack: AsyncExitStack) -> Staging:
    """Waits for the lock, so that Ctrl-C is heard meanwhile."""
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return stack.enter_context(statedir.staging(timeout=0))
        except Locked:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(_LOCK_POLL_SECONDS)


def _verifies(state: State, directory: Path) -> bool:
    """Whether a key directory still holds what the manifest says, but for what may be written."""
    try:
        tree = scan(directory)
    except BundlerError:
        return False
    if tree.dir_hash == state.digest.dir_hash:
        return True
    expected = {file.path: file.sha256 for file in state.files}
    below = tuple(f"{path}/" for path in state.writable)
    now = {file.path: file.sha256 for file in tree.files}
    return all(
        path.startswith(below) and path in now
        for path in expected
        if now.get(path) != expected[path]
    ) and all(path in expected or path.startswith(below) for path in now)


def _tell_non_local(directory: _Directory, listener: Listener) -> None:
    for component in directory.components.values():
        if component.management_type == _LEGACY:
            listener.warning(
                f"{component.key} is {_LEGACY}: it is fetched at every load of the code location, "
                "so an outage breaks the load itself, and no build can prevent that."
            )
        elif component.management_type != "LOCAL_FILESYSTEM":
            listener.note(
                f"{component.key} is {component.management_type}: not in the artifact, not "
                "refreshed here."
            )


def _selected(component: Component, options: RefreshOptions) -> bool:
    return (not options.keys or component.key in options.keys) and (
        not options.management_types or component.management_type in options.management_types
    )


def _jobs(directory: _Directory, listener: Listener) -> Iterator[Job]:
    """The keys that are to be fetched; for the others, what is published is taken over."""
    staging = directory.staging
    assert staging is not None  # noqa: S101  # `_open` has been here
    for component in directory.local:
        key = component.key
        mode = directory.options.mode_of(key)
        baseline = directory.baselines.get(key)
        if not _selected(component, directory.options):
            _keep_unselected(directory, key, listener)
        elif mode == "always" or (mode == "missing" and baseline is None):
            yield Job(
                component,
                directory.owners[key],
                directory.options.of_key(key),
                staging.key_directory,
                baseline,
            )
        else:
            _keep(directory, key, listener)


def _keep_unselected(directory: _Directory, key: str, listener: Listener) -> None:
    if key in directory.baselines:
        _keep(directory, key, listener)
    else:
        listener.warning(f"{key} has no state that verifies, and was not asked for.")


def _keep(directory: _Directory, key: str, listener: Listener) -> None:
    """Takes over what is published. Raises `VerificationFailed` where that does not verify."""
    if key not in directory.baselines:
        raise VerificationFailed(
            f"{key} has no state that verifies in {directory.statedir.path}, and is not to be "
            "refreshed.",
            hint=f"Run: state-bundler refresh --key '{key}'",
            key=key,
        )
    state = directory.states[key] = _use_baseline(directory, key)
    directory.refreshes[key] = directory.record.get(key) or KeyRefresh(key, origin="unknown")
    listener.key(KeyProgress(key, "kept", size=state.size))


def _use_baseline(directory: _Directory, key: str) -> State:
    """Makes the baseline's bytes what is published for a key."""
    baseline, staging = directory.baselines[key], directory.staging
    assert staging is not None  # noqa: S101  # `_open` has been here
    if baseline.directory == directory.statedir.path / baseline.state.path:
        staging.discard(key)
    else:
        target = staging.key_directory(key)
        with io_errors(target):
            shutil.copytree(baseline.directory, target, symlinks=True, dirs_exist_ok=True)
    return baseline.state


# --- fetching ---------------------------------------------------------------------------------


async def _fetch_all(
    jobs: Sequence[Job],
    directories: Sequence[_Directory],
    options: RefreshOptions,
    scratch: Path,
    listener: Listener,
) -> None:
    """Fetches every key, then raises for those that failed."""
    if jobs:
        listener.phase(f"Refreshing {len(jobs)} {'key' if len(jobs) == 1 else 'keys'}")
    whole = directories[0].options if directories else options
    limits = _Limits(whole)
    seconds = whole.total_timeout or DEFAULT_TOTAL_TIMEOUT_SECONDS
    by_owner = {id(item): directory for directory in directories for item in directory.sources}

    async def one(job: Job) -> BundlerError | None:
        return await _one(job, by_owner[id(job.source)], limits, scratch, listener)

    tasks = {asyncio.ensure_future(one(job)): job for job in jobs}
    try:
        done, late = await asyncio.wait(tasks, timeout=seconds) if tasks else (set(), set())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failures = [failure for task in tasks if task in done and (failure := task.result())]
    failures += [_too_late(tasks[task].component.key, seconds) for task in late]
    raise_all(failures)


def _too_late(key: str, seconds: float) -> BundlerError:
    return Unavailable(
        f"{key}: the whole refresh did not end within {seconds:g} s.",
        hint="Allow more with --total-timeout, or find out what is slow.",
        key=key,
    )


async def _one(
    job: Job, directory: _Directory, limits: _Limits, scratch: Path, listener: Listener
) -> BundlerError | None:
    """Fetches a key and takes the result over. Returns its failure, if that stands."""
    key = job.component.key
    try:
        fetched = await limits.fetch(job, scratch, listener)
    except KeyFailedError as failed:
        if _take_stale(directory, job, failed, listener):
            return None
        listener.key(KeyProgress(key, "failed", failed.attempts))
        for line in failed.log:
            listener.note(f"{key} | {line}")
        return failed.error
    except BundlerError as error:
        listener.key(KeyProgress(key, "failed"))
        return error
    _take(directory, job, fetched, listener)
    return None


class _Limits:
    """How many keys are fetched at once: in all, and of one kind of component."""

    def __init__(self, options: RefreshOptions) -> None:
        self._all = asyncio.Semaphore(options.jobs or DEFAULT_JOBS)
        self._options = options
        self._kinds: dict[str, asyncio.Semaphore] = {}

    async def fetch(self, job: Job, scratch: Path, listener: Listener) -> Fetched:
        async with self._kind(job.component), self._all:
            return await fetch(job, scratch, listener)

    def _kind(self, component: Component) -> asyncio.Semaphore:
        pattern, jobs = self._limit(component)
        return self._kinds.setdefault(pattern, asyncio.Semaphore(jobs))

    def _limit(self, component: Component) -> tuple[str, int]:
        for pattern, jobs in self._options.kind_jobs.items():
            if fnmatchcase(component.kind, pattern):
                return pattern, jobs
        kind = kind_of(component)
        return kind.pattern, kind.jobs or self._options.jobs or DEFAULT_JOBS


def _take(directory: _Directory, job: Job, fetched: Fetched, listener: Listener) -> None:
    key, state, now = job.component.key, fetched.checked.state, _now()
    baseline, before = job.baseline, directory.record.get(key)
    same = baseline is not None and baseline.state.digest.semantic == state.digest.semantic
    if same:
        state = _use_baseline(directory, key)
    directory.states[key] = state
    directory.refreshes[key] = KeyRefresh(
        key=key,
        attempts=fetched.attempts,
        fetched=before.fetched if same and before and before.fetched else now,
        confirmed=now,
        environment_variables=fetched.environment,
    )
    for warning in fetched.checked.warnings:
        listener.warning(warning)
    if fetched.checked.left_out:
        listener.note(f"{key}: left out {_shortened(fetched.checked.left_out)}.")
    detail = "unchanged" if same else ""
    listener.key(KeyProgress(key, "done", fetched.attempts, state.size, fetched.seconds, detail))


def _shortened(paths: Sequence[str], most: int = 5) -> str:
    more = len(paths) - most
    return ", ".join(paths[:most]) + (f" and {more} more" if more > 0 else "")


def _take_stale(
    directory: _Directory, job: Job, failed: KeyFailedError, listener: Listener
) -> bool:
    """Uses the baseline in place of an unavailable system, if that was allowed and it is young."""
    import msgspec

    key, most = job.component.key, directory.options.allow_stale
    before = directory.record.get(key)
    confirmed = before.confirmed or before.fetched if before else None
    if most is None or before is None or confirmed is None:
        return False
    if not isinstance(failed.error, Unavailable) or _seconds_since(confirmed) > most:
        return False
    directory.states[key] = _use_baseline(directory, key)
    directory.refreshes[key] = msgspec.structs.replace(before, stale=True, attempts=failed.attempts)
    listener.warning(
        f"{failed.error.what} The state of {confirmed} is used instead, because --allow-stale "
        "allows it."
    )
    return True


# --- publishing -------------------------------------------------------------------------------


def _publish(
    directories: Sequence[_Directory], loaded: Sequence[Loaded], listener: Listener
) -> Refreshed:
    bundles, records, changed = [], [], []
    for directory in directories:
        staging, place = directory.staging, directory.statedir.place
        assert staging is not None  # noqa: S101  # `_open` has been here
        record = DirectoryRefresh(
            place, tuple(sorted(directory.refreshes.values(), key=lambda item: item.key))
        )
        publication = staging.publish(
            tuple(directory.states.values()),
            _non_local(directory),
            functools.partial(_record, record),
        )
        for name in publication.removed:
            listener.note(f"Removed {name}: no component has that key any more.")
        bundles.append(publication.bundle)
        records.append(record.of(publication.bundle.manifest))
        changed += [
            key for key, state in directory.states.items() if state.path in publication.changed
        ]
    return Refreshed(
        tuple(bundles), tuple(records), tuple(item.found for item in loaded), tuple(sorted(changed))
    )


def _non_local(directory: _Directory) -> tuple[NonLocalKey, ...]:
    return tuple(
        NonLocalKey(component.key, component.management_type)
        for component in directory.components.values()
        if component.management_type != "LOCAL_FILESYSTEM"
    )


def _record(record: DirectoryRefresh, manifest: Manifest) -> RunRecord:
    return RunRecord(refresh=(record.of(manifest),), tool=Tool("state-bundler", __version__))


def _now() -> str:
    """The time, or ``SOURCE_DATE_EPOCH`` for a reproducible record; RFC 3339."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = int(epoch) if epoch and epoch.isdigit() else time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _seconds_since(moment: str) -> float:
    then = calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ"))
    return time.time() - then
