"""Refreshes the states of projects: all of them, or nothing.

1. Every source lists its components, in the project's own interpreter.
2. Each state directory is locked, and an interrupted publish finished.
3. Each key that is to be fetched is written into the staging area by its own process.
4. What was written is judged (`bundler.refresh.checks`, `bundler.refresh.removal_check`).
5. Only if every key succeeded, the state directories get their new states atomically.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from bundler.artifacts import baseline
from bundler.errors import (
    BadData,
    BundlerError,
    ConfigurationError,
    Interrupted,
    Unavailable,
    raise_all,
)
from bundler.listener import Listener
from bundler.project.options import (
    DEFAULT_JOBS,
    DEFAULT_TOTAL_TIMEOUT_SECONDS,
    RefreshOptions,
    matches,
)
from bundler.refresh import forking
from bundler.refresh.attempts import Fetched, KeyFailedError, KeyJob, fetch
from bundler.refresh.directories import VERSIONED, Collected, Collector, Directory
from bundler.refresh.discovery import Keep, LoadedSource, load_all
from bundler.refresh.failure_log import write_failure_log
from bundler.refresh.model import Component, Found, warnings_of
from bundler.refresh.removal_check import refuse_removals
from bundler.refresh.reporting import (
    Failing,
    conclude,
    declare,
    nearest_key,
)
from bundler.refresh.scratch import scratch_folder
from bundler.refresh.vendors import kind_of
from bundler.state.bundle import Bundle
from bundler.state.hold import hold
from bundler.state.manifest import DirectoryRefresh, ManagementType
from bundler.state.statedir import Publication, StateDir, publish_together
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.project.projects import Project

_LEGACY = "LEGACY_CODE_SERVER_SNAPSHOTS"
_T = TypeVar("_T")


class Refreshed(msgspec.Struct, frozen=True):
    """The result of a refresh.

    bundles: one per state directory, published. changed: the keys whose bytes differ from before.
    collected: what was fetched without being published. options: those of each place. shrunk: for a
    plan, the states that a refresh would refuse as shrunk, compared with its own baseline.
    """

    bundles: tuple[Bundle, ...]
    record: tuple[DirectoryRefresh, ...]
    found: tuple[Found, ...]
    changed: tuple[str, ...] = ()
    collected: tuple[Collected, ...] = ()
    options: Mapping[str, RefreshOptions] = {}
    shrunk: tuple[BadData, ...] = ()


# Which of the keys that are there to fetch; empty for none.
Choose = Callable[[frozenset[str]], Awaitable[Sequence[str]]]


def discover(
    projects: Sequence[Project], listener: Listener, *, keep: Keep | None = None
) -> tuple[Found, ...]:
    """What the sources of the projects have, one value a source; refreshes nothing.

    keep: receives each answer, with what it depends on.
    """
    return run_to_end(lambda _: _discover(projects, listener, keep))


def refresh(
    projects: Sequence[Project],
    options: RefreshOptions,
    listener: Listener,
    aside: Path | None = None,
    held: ExitStack | None = None,
    *,
    into: Path | None = None,
) -> Refreshed:
    """Refreshes and publishes.

    options: from the command line; they override the projects'. held: if the bundles are to be
    embedded; until it is closed, they stay unchanged, whatever another process publishes. aside: an
    empty folder into which keys in versioned storage are fetched as well; without one they are not
    refreshed. into: an empty folder in which everything is published, for a plan: the projects' own
    state directories stay unchanged, and removals are not refused. Raises the failure of a key, or
    `Several`; nothing was published then.
    """
    return run_to_end(
        lambda decided: _refresh(
            projects, options, listener, decided, aside=aside, held=held, into=into
        )
    )


def fetch_into(
    folder: Path,
    projects: Sequence[Project],
    options: RefreshOptions,
    listener: Listener,
    *,
    types: Sequence[ManagementType],
    choose: Choose,
) -> tuple[Collected, ...]:
    """Refreshes keys of some management types into a folder.

    choose: called once the keys are known. Each gets its own key directory below the folder, which
    must be empty; nothing is published. Raises as `refresh` does, and leaves what was written to
    the caller.
    """
    return run_to_end(
        lambda _: _fetch_into(folder, projects, options, listener, types=types, choose=choose)
    )


def run_to_end(work: Callable[[asyncio.Event], Coroutine[Any, Any, _T]]) -> _T:
    """Runs to the end, or until SIGINT or SIGTERM: then everything is ended and cleaned up.

    The work sets the event when the outcome is decided: a signal is too late then.
    """
    received: list[int] = []

    async def main() -> _T:
        loop, decided = asyncio.get_running_loop(), asyncio.Event()
        task = asyncio.ensure_future(work(decided))

        def stop(number: int) -> None:
            if not decided.is_set():
                received.append(number)
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            # Only in the main thread, where signals arrive anyway.
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


async def _discover(
    projects: Sequence[Project], listener: Listener, keep: Keep | None
) -> tuple[Found, ...]:
    listener.working("Finding components")
    async with loaded_sources(projects, RefreshOptions(), listener, keep) as (loaded, _):
        listener.working("")
        return tuple(item.found for item in loaded)


@asynccontextmanager
async def loaded_sources(
    projects: Sequence[Project],
    options: RefreshOptions,
    listener: Listener,
    keep: Keep | None = None,
) -> AsyncIterator[tuple[list[LoadedSource], Path]]:
    """The sources with their workers, which end with the context, and a private scratch folder."""
    loaded: list[LoadedSource] = []
    with scratch_folder() as scratch, forking.of_process() as forks:
        try:
            await load_all(
                projects,
                scratch,
                loaded,
                named=options.secrets,
                excluded=options.not_secrets,
                inside=options.inside,
                keep=keep,
                forks=forks,
            )
            for warning in warnings_of([item.found for item in loaded], options.keys):
                listener.warning(warning)
            yield loaded, scratch
        finally:
            await asyncio.gather(*(item.worker.close() for item in loaded))


async def _refresh(
    projects: Sequence[Project],
    options: RefreshOptions,
    listener: Listener,
    decided: asyncio.Event,
    *,
    aside: Path | None,
    held: ExitStack | None,
    into: Path | None,
) -> Refreshed:
    began = time.monotonic()
    listener.phase("Finding components")
    async with (
        loaded_sources(projects, options, listener) as (loaded, scratch),
        AsyncExitStack() as stack,
    ):
        directories = directories_of(loaded, options, listener, into)
        check_selection(options, directories)
        if held is not None or into is not None:
            _refuse_one_place(directories)
        name = directories[0].options.baseline if directories else None
        given = stack.enter_context(baseline.opened(name))
        places = [directory.statedir.place for directory in directories]
        # In the same order in every process: each waits for the locks of others.
        for directory in sorted(directories, key=lambda item: item.statedir.path):
            await directory.open(stack, given, places, listener)
            _tell_legacy(directory, listener)
            if aside is None:
                await directory.take_stored(listener)
        collectors = _collectors(aside, directories, (VERSIONED,)) if aside else []
        jobs = [(item, job) for item in directories for job in item.jobs(listener)]
        await _fetch_all([*jobs, *_jobs_of(collectors)], directories, scratch, listener)
        if into is None:
            await refuse_removals(directories, listener)
        unchanged = [await directory.settle(stack, listener) for directory in directories]
        decided.set()
        refreshed = _publish(directories, unchanged, loaded, listener)
        if into is None:
            conclude(refreshed.bundles, refreshed.changed, time.monotonic() - began, listener)
        if held is not None:
            bundles = tuple(hold(bundle, held) for bundle in refreshed.bundles)
            refreshed = msgspec.structs.replace(refreshed, bundles=bundles)
    return msgspec.structs.replace(refreshed, collected=_collected(collectors))


async def _fetch_into(
    folder: Path,
    projects: Sequence[Project],
    options: RefreshOptions,
    listener: Listener,
    *,
    types: Sequence[ManagementType],
    choose: Choose,
) -> tuple[Collected, ...]:
    listener.phase("Finding components")
    async with loaded_sources(projects, options, listener) as (loaded, scratch):
        components = [component for item in loaded for component in item.found.components]
        known = {item.key for item in components if item.management_type in types}
        chosen = await choose(frozenset(known))
        if not chosen:
            return ()
        selected = msgspec.structs.replace(options, keys=tuple(chosen))
        directories = directories_of(loaded, selected, listener)
        collectors = _collectors(folder, directories, types)
        await _fetch_all(_jobs_of(collectors), directories, scratch, listener)
    return _collected(collectors)


def _collectors(
    folder: Path, directories: Sequence[Directory], types: Sequence[ManagementType]
) -> list[Collector]:
    return [Collector(folder / str(n), item, tuple(types)) for n, item in enumerate(directories)]


def _jobs_of(collectors: Sequence[Collector]) -> list[tuple[Directory | Collector, KeyJob]]:
    return [(item, job) for item in collectors for job in item.jobs()]


def _collected(collectors: Sequence[Collector]) -> tuple[Collected, ...]:
    return tuple(item for collector in collectors for item in collector.collected)


def directories_of(
    loaded: Sequence[LoadedSource],
    options: RefreshOptions,
    listener: Listener,
    into: Path | None = None,
) -> list[Directory]:
    """The sources by the state directory that they share; those that have components."""
    by_path: dict[Path, Directory] = {}
    for item in loaded:
        found = item.found
        allowed = item.source.project.config.allowed_paths
        own = StateDir(found.directory, found.place, allowed)
        here = own if into is None else StateDir(into / str(len(by_path)) / own.place, own.place)
        directory = by_path.setdefault(
            found.directory,
            Directory(
                here,
                options.over(item.source.project.config.refresh),
                published_in=None if into is None else own,
            ),
        )
        directory.sources.append(item)
    for directory in by_path.values():
        directory.settle_components()
    for directory in by_path.values():
        if not directory.components and (published := directory.statedir.read()):
            states = counted(len(published.manifest.states), "state")
            listener.warning(
                f"No component was found for {directory.statedir.place}. The published states "
                f"({states}) are kept and not embedded."
            )
    return [directory for directory in by_path.values() if directory.components]


def check_selection(options: RefreshOptions, directories: Sequence[Directory]) -> None:
    known = {key for directory in directories for key in directory.components}
    for key in options.keys:
        if key not in known:
            raise ConfigurationError(
                f"No component has the key {key!r}.", hint=nearest_key(key, known), key=key
            )
    if options.is_one_of_all or not known:
        return  # a pattern applies to every project that is built, and another one has the key
    for pattern in (*options.allow_empty, *options.allow_shrink):
        if not any(matches(key, pattern) for key in known):
            raise ConfigurationError(
                f"No component has a key that {pattern!r} matches.",
                hint=nearest_key(pattern, known),
                key=pattern,
            )


def _refuse_one_place(directories: Sequence[Directory]) -> None:
    """One artifact cannot have two state directories at the same place."""
    by_place: dict[str, Directory] = {}
    for directory in directories:
        place = directory.statedir.place
        other = by_place.setdefault(place, directory)
        if other is not directory:
            one, two = ((it.published_in or it.statedir).path for it in (other, directory))
            raise ConfigurationError(
                f"{one} and {two} would both be {place} in the artifact.",
                hint="Build the projects one at a time with --project, or set another `place` "
                "for one of the sources.",
            )


def _tell_legacy(directory: Directory, listener: Listener) -> None:
    for component in directory.components.values():
        if component.management_type == _LEGACY and directory.is_selected(component):
            listener.warning(
                f"{component.key} is {_LEGACY}: it is fetched on every load of the code location, "
                "so an outage breaks the load, and no build can prevent that."
            )


# --- fetching ---------------------------------------------------------------------------------


async def _fetch_all(
    jobs: Sequence[tuple[Directory | Collector, KeyJob]],
    directories: Sequence[Directory],
    scratch: Path,
    listener: Listener,
) -> None:
    """Fetches every key and passes it to its directory, then raises for those that failed."""
    if jobs:
        listener.phase(f"Refreshing {counted(len(jobs), 'key')}")
        listener.expect(len(jobs))
    whole = directories[0].options if directories else RefreshOptions()
    limits = _Limits(whole)
    seconds = whole.total_timeout or DEFAULT_TOTAL_TIMEOUT_SECONDS

    failing = Failing(len(jobs), listener)

    async def one(owner: Directory | Collector, job: KeyJob) -> BundlerError | None:
        try:
            return await _one(job, owner, limits, scratch, listener, failing=failing)
        finally:
            failing.under_way -= 1

    tasks = {asyncio.ensure_future(one(owner, job)): job for owner, job in jobs}
    try:
        done, late = await asyncio.wait(tasks, timeout=seconds) if tasks else (set(), set())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failures = [failure for task in tasks if task in done and (failure := task.result())]
    failures += [_too_late(tasks[task].component.key, seconds) for task in late]
    if failures:
        declare(failures, [job for _, job in jobs])
        project = jobs[0][1].source.source.project.name
        raise_all(
            failures,
            f"{len(failures)} of {counted(len(jobs), 'key')} failed; nothing was published, the "
            "previous state is unchanged.",
            write_failure_log(project, failing.outputs),
        )


def _too_late(key: str, seconds: float) -> BundlerError:
    return Unavailable.of_key(
        key,
        f"the refresh did not finish within {seconds:g} s.",
        hint="Increase --total-timeout, or find out what is slow.",
    )


async def _one(
    job: KeyJob,
    directory: Directory | Collector,
    limits: _Limits,
    scratch: Path,
    listener: Listener,
    *,
    failing: Failing,
) -> BundlerError | None:
    """Fetches a key and applies the result. Returns its failure, if it is final."""
    key = job.component.key
    try:
        fetched = await limits.fetch(job, scratch, listener)
    except KeyFailedError as failed:
        if directory.take_stale(job, failed, listener):
            return None
        failing.tell(key, failed)
        return failed.error
    except BundlerError as error:
        failing.tell(key, KeyFailedError(error, 0))
        return error
    directory.take(job, fetched, listener)
    return None


class _Limits:
    """How many keys are fetched concurrently: in total, and of one kind of component."""

    def __init__(self, options: RefreshOptions) -> None:
        self._all = asyncio.Semaphore(options.jobs or DEFAULT_JOBS)
        self._options = options
        self._kinds: dict[str, asyncio.Semaphore] = {}

    async def fetch(self, job: KeyJob, scratch: Path, listener: Listener) -> Fetched:
        async with self._kind(job.component), self._all:
            return await fetch(job, scratch, listener)

    def _kind(self, component: Component) -> asyncio.Semaphore:
        pattern, jobs = self._limit(component)
        return self._kinds.setdefault(pattern, asyncio.Semaphore(jobs))

    def _limit(self, component: Component) -> tuple[str, int]:
        for pattern, jobs in self._options.kind_jobs.items():
            if any(fnmatchcase(kind, pattern) for kind in component.kinds):
                return pattern, jobs
        kind = kind_of(component)
        return kind.pattern, kind.jobs or self._options.jobs or DEFAULT_JOBS


def _publish(
    directories: Sequence[Directory],
    unchanged: Sequence[Publication | None],
    loaded: Sequence[LoadedSource],
    listener: Listener,
) -> Refreshed:
    changing = [item for item, same in zip(directories, unchanged, strict=True) if same is None]
    made = iter(publish_together([directory.ready() for directory in changing]))
    published = [
        directory.published(same or next(made), listener)
        for directory, same in zip(directories, unchanged, strict=True)
    ]
    return Refreshed(
        bundles=tuple(item.bundle for item in published),
        record=tuple(item.record for item in published),
        found=tuple(item.found for item in loaded),
        changed=tuple(sorted(key for item in published for key in item.changed)),
        options={item.statedir.place: item.options for item in directories},
        shrunk=tuple(
            error
            for item in directories
            for key, error in item.shrunk.items()
            if not item.options.of_key(key).limits_assets
        ),
    )
