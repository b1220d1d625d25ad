"""Refreshes the states of projects: all of them, or nothing.

1. Every source lists its components, in the project's own interpreter.
2. Each state directory is locked, and an interrupted publish finished.
3. Each key that is to be fetched is written into the staging area by its own process.
4. What was written is judged (`bundler.refresh.checks`, `bundler.refresh.removals`).
5. Only if every key succeeded, the state directories get their new states atomically.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from bundler.artifacts import baseline
from bundler.errors import BadData, ConfigurationError, Interrupted
from bundler.listener import Listener
from bundler.project.options import RefreshOptions, matches
from bundler.refresh.collecting import Collected, collected_of, collectors_of, jobs_of
from bundler.refresh.directories import LOCAL, VERSIONED, Directory
from bundler.refresh.discovery import LoadedSource, loaded_sources
from bundler.refresh.fetching import fetch_all
from bundler.refresh.keys import nearest_key
from bundler.refresh.model import Component, Found
from bundler.refresh.removals import refuse_removals
from bundler.refresh.reporting import conclude, declared_at
from bundler.state.bundle import Bundle
from bundler.state.hold import hold
from bundler.state.manifest import DirectoryRefresh, KeyRefresh, ManagementType, State
from bundler.state.statedir import Publication, StateDir, publish_together
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.project.projects import Project

_LEGACY = "LEGACY_CODE_SERVER_SNAPSHOTS"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_T = TypeVar("_T")


class Refreshed(msgspec.Struct, frozen=True):
    """The result of a refresh.

    bundles: one per state directory, published. record, changes: of each; changes are the keys
    whose states differ from before.
    collected: what was fetched without being published. options: those of each place. shrunk: for a
    plan, the states that a refresh would refuse as shrunk, compared with its own baseline.
    """

    bundles: tuple[Bundle, ...]
    record: tuple[DirectoryRefresh, ...]
    found: tuple[Found, ...]
    changes: tuple[tuple[str, ...], ...] = ()
    collected: tuple[Collected, ...] = ()
    options: Mapping[str, RefreshOptions] = {}
    shrunk: tuple[BadData, ...] = ()

    @property
    def changed(self) -> tuple[str, ...]:
        """The keys whose states differ from before; one of several projects' may occur twice."""
        return tuple(sorted(key for keys in self.changes for key in keys))

    def states(self) -> Iterator[tuple[Bundle, State, KeyRefresh | None, bool]]:
        """Every published state with its bundle, how it was made, and whether it changed.

        Several projects may have the same key at the same place.
        """
        for bundle, refresh, changes in zip(self.bundles, self.record, self.changes, strict=True):
            known = {made.key: made for made in refresh.keys}
            for state in bundle.manifest.states:
                yield bundle, state, known.get(state.key), state.key in changes


Action = Literal["fetch", "keep", "skip"]


class PlannedKey(msgspec.Struct, frozen=True, rename="camel"):
    """action: ``skip`` for a key that is not selected or not kept in the artifact. declared: the
    file and line that declare its component; empty if unknown."""

    key: str
    management_type: ManagementType
    action: Action
    declared: str


# Which of the keys that are there to fetch; empty for none.
Choose = Callable[[frozenset[str]], Awaitable[Sequence[str]]]


def discover(
    projects: Sequence[Project], listener: Listener, *, keeps: bool = False
) -> tuple[Found, ...]:
    """What the sources of the projects have, one value a source; refreshes nothing.

    keeps: whether each answer is kept for later commands (`bundler.refresh.discovery_cache`).
    """

    async def work(_: asyncio.Event) -> tuple[Found, ...]:
        listener.working("Finding components")
        loading = loaded_sources(projects, RefreshOptions(), listener, keeps=keeps)
        async with loading as (loaded, _scratch):
            listener.working("")
            return tuple(item.found for item in loaded)

    return run_to_end(work)


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

    async def work(decided: asyncio.Event) -> Refreshed:
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
            await _open(directories, stack, listener, takes_stored=aside is None)
            collectors = collectors_of(aside, directories, (VERSIONED,)) if aside else []
            jobs = [job for item in directories for job in item.jobs(listener)]
            jobs += jobs_of(collectors)
            await fetch_all(jobs, directories, scratch, listener)
            if into is None:
                await refuse_removals(directories, listener)
            unchanged = [
                await directory.stage_unless_unchanged(stack, listener) for directory in directories
            ]
            for directory, same in zip(directories, unchanged, strict=True):
                if same is None:
                    await asyncio.to_thread(directory.refuse_altered)
            decided.set()
            refreshed = _publish(directories, unchanged, loaded, listener)
            if into is None:
                conclude(refreshed.bundles, refreshed.changed, time.monotonic() - began, listener)
            bundles = refreshed.bundles
            if held is not None:
                bundles = tuple(hold(bundle, held) for bundle in bundles)
        return msgspec.structs.replace(
            refreshed, bundles=bundles, collected=collected_of(collectors)
        )

    return run_to_end(work)


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

    async def work(_: asyncio.Event) -> tuple[Collected, ...]:
        listener.phase("Finding components")
        async with loaded_sources(projects, options, listener) as (loaded, scratch):
            components = [component for item in loaded for component in item.found.components]
            known = {item.key for item in components if item.management_type in types}
            chosen = await choose(frozenset(known))
            if not chosen:
                return ()
            selected = msgspec.structs.replace(options, keys=tuple(chosen))
            directories = directories_of(loaded, selected, listener)
            collectors = collectors_of(folder, directories, types)
            await fetch_all(jobs_of(collectors), directories, scratch, listener)
        return collected_of(collectors)

    return run_to_end(work)


def preview(
    projects: Sequence[Project], options: RefreshOptions, listener: Listener
) -> tuple[PlannedKey, ...]:
    """What would happen to each key. Raises as a refresh does in its checks before fetching."""

    async def work(_: asyncio.Event) -> tuple[PlannedKey, ...]:
        listener.phase("Finding components")
        async with loaded_sources(projects, options, listener) as (loaded, _scratch):
            directories = directories_of(loaded, options, listener)
            check_selection(options, directories)
            for directory in directories:
                await directory.read_baselines(directory.statedir)
            return tuple(key for directory in directories for key in _planned(directory))

    return run_to_end(work)


def _planned(directory: Directory) -> Iterator[PlannedKey]:
    for component in directory.components.values():
        yield PlannedKey(
            component.key,
            component.management_type,
            _action(directory, component),
            declared_at(directory.source_of(component).source, component),
        )


def _action(directory: Directory, component: Component) -> Action:
    if component.management_type != LOCAL or not directory.is_selected(component):
        return "skip"
    return "fetch" if directory.fetches(component.key) else "keep"


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

        for number in _SIGNALS:
            with suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, stop, number)
        return await task

    # Only the main thread has handlers, and signals arrive there anyway.
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _SIGNALS} if is_main else {}
    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        number = received[0] if received else signal.SIGINT
        raise Interrupted(number, "nothing was published") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _open(
    directories: Sequence[Directory],
    stack: AsyncExitStack,
    listener: Listener,
    *,
    takes_stored: bool,
) -> None:
    """Locks the state directories, and finds the baseline of each key."""
    name = directories[0].options.baseline if directories else None
    given = stack.enter_context(baseline.opened(name))
    places = [directory.statedir.place for directory in directories]
    # In the same order in every process: each waits for the locks of others.
    for directory in sorted(directories, key=lambda item: item.statedir.path):
        await directory.open(stack, given, places, listener)
        _tell_legacy(directory, listener)
        if takes_stored:
            await directory.take_stored(listener)


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


def _publish(
    directories: Sequence[Directory],
    unchanged: Sequence[Publication | None],
    loaded: Sequence[LoadedSource],
    listener: Listener,
) -> Refreshed:
    changing = [item for item, same in zip(directories, unchanged, strict=True) if same is None]
    made = iter(publish_together([directory.ready() for directory in changing]))
    published = [same or next(made) for same in unchanged]
    for directory, publication in zip(directories, published, strict=True):
        directory.report(publication, listener)
    return Refreshed(
        bundles=tuple(item.bundle for item in published),
        record=tuple(item.refresh for item in published),
        found=tuple(item.found for item in loaded),
        changes=tuple(
            tuple(directory.changed_by(publication))
            for directory, publication in zip(directories, published, strict=True)
        ),
        options={item.statedir.place: item.options for item in directories},
        shrunk=tuple(
            error
            for item in directories
            for key, error in item.shrunk.items()
            if not item.options.of_key(key).limits_assets
        ),
    )
