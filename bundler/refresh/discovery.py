"""Finds the components of projects: one worker per source, concurrently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.errors import BundlerError, ConfigurationError, Unavailable, raise_all
from bundler.listener import Listener
from bundler.project.environment_tools import how_to_install
from bundler.project.options import RefreshOptions
from bundler.refresh import discovery_cache, forking
from bundler.refresh.discovery_cache import CacheQuery
from bundler.refresh.forking import Forks, Start
from bundler.refresh.keys import unused_tables, withheld
from bundler.refresh.model import Found, Source, found_of, warnings_of
from bundler.refresh.outcome.exchanges import links
from bundler.refresh.scratch import scratch_folder
from bundler.refresh.secret_values import named_files
from bundler.refresh.sources import load_error, sources_of
from bundler.refresh.surroundings import Surroundings, surroundings_of
from bundler.refresh.workers import WorkerProcess, launch
from bundler.system import process

if TYPE_CHECKING:
    from bundler.project.projects import Project
    from bundler.refresh.inside import Image

_LOAD_SECONDS = 120.0


class LoadedSource(msgspec.Struct, frozen=True):
    """A source whose components are known, with the worker that writes their states."""

    source: Source
    found: Found
    worker: WorkerProcess
    surroundings: Surroundings


@asynccontextmanager
async def loaded_sources(
    projects: Sequence[Project],
    options: RefreshOptions,
    listener: Listener,
    *,
    keeps: bool = False,
) -> AsyncIterator[tuple[list[LoadedSource], Path]]:
    """The sources with their workers, which end with the context, and a private scratch folder.

    keeps: whether each answer is kept for later commands (`discovery_cache`). Raises one error for
    all sources that failed.
    """
    with scratch_folder() as scratch, forking.of_process() as forks:
        # What a fork's parent has read would be missing in an answer that is kept.
        loading = _Loading(scratch, None if keeps else forks, keeps)
        if options.inside is not None:
            from bundler.refresh.inside import Image

            loading.image = await process.in_thread(Image.find, options.inside)
        try:
            loaded = await loading.load_all(_queries(projects, options))
            for warning in warnings_of([item.found for item in loaded], options.keys):
                listener.warning(warning)
            for project in () if options.keys else projects:
                found = [item.found for item in loaded if item.source.project is project]
                keys = {component.key for item in found for component in item.components}
                for warning in unused_tables(project.config, keys):
                    listener.warning(warning)
            yield loaded, scratch
        finally:
            await asyncio.gather(*(worker.close() for worker in loading.workers))


def _queries(
    projects: Sequence[Project], options: RefreshOptions
) -> Iterator[tuple[CacheQuery, Surroundings]]:
    for project in projects:
        config = project.config.refresh
        queries = [CacheQuery.of(source) for source in sources_of(project)]
        surroundings = surroundings_of(
            project,
            named=(*options.secrets, *config.secrets),
            excluded=(*options.not_secrets, *config.not_secrets),
        )
        yield from ((query, surroundings) for query in queries)


class _Loading(msgspec.Struct):
    """Where and how sources are loaded. image: None for this machine. workers: all started ones."""

    scratch: Path
    forks: Forks | None
    keeps: bool
    image: Image | None = None
    workers: list[WorkerProcess] = msgspec.field(default_factory=list)

    async def load_all(
        self, queries: Iterable[tuple[CacheQuery, Surroundings]]
    ) -> list[LoadedSource]:
        queried = list(queries)
        if self.forks is not None:
            self.forks.expect([_start_of(query.source, seen) for query, seen in queried])
        tasks = [self._load(query, seen) for query, seen in queried]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, BundlerError):
                raise result
        raise_all([result for result in results if isinstance(result, BundlerError)])
        return [result for result in results if isinstance(result, LoadedSource)]

    def _start(self, source: Source, surroundings: Surroundings) -> WorkerProcess:
        """Starts a worker for this source, without loading anything."""
        if self.image is not None:
            from bundler.refresh.inside import InsideWorker

            output = self.scratch / f"inside-{id(source)}.log"
            return InsideWorker(source, self.image, surroundings.environment, output)
        how = launch(
            _start_of(source, surroundings),
            cwd=source.project.root,
            output=self.scratch / "load.log",
            forks=self.forks,
        )
        return WorkerProcess(how, str(source.python))

    async def _load(self, query: CacheQuery, surroundings: Surroundings) -> LoadedSource:
        source = query.source
        command = source.load
        if self.keeps:
            # What is withheld also depends on the files that variables name.
            named = named_files(surroundings.environment, source.project.root)
            command = {**command, "observed": (*query.files, *named)}
        worker = self._start(source, surroundings)
        self.workers.append(worker)
        try:
            event = await asyncio.wait_for(worker.load(command), _LOAD_SECONDS)
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise Unavailable(
                f"Loading the components of {source.project.name} took longer than "
                f"{_LOAD_SECONDS:g} s.",
                hint="The project may be blocked during import; to find out, run "
                "`dg list components`.",
            ) from error
        if event["event"] == "load-failed":
            name = self.image.inside.image if self.image is not None else None
            raise load_error(source, links(event["chain"]), surroundings.secrets, name)
        try:
            found = withheld(found_of(event), surroundings.secrets)
        except msgspec.ValidationError as error:
            raise ConfigurationError(
                f"A component of {source.project.name} describes itself wrongly: {error}.",
                hint="See its `defs_state_config`.",
            ) from error
        if self.image is None and source.kind == "dagster":
            found = _with_place(found, source.project)
        if self.keeps:
            discovery_cache.keep(query, event, found)
        return LoadedSource(source, found, worker, surroundings)


def _with_place(found: Found, project: Project) -> Found:
    """With a warning if the interpreter imports the package of another checkout, or of none."""
    if found.directory.resolve().is_relative_to(project.root.resolve()):
        return found
    warning = (
        f"The interpreter of {project.name} imports the package from {found.directory.parent}, "
        f"which is not in {project.root}: the components and the state directory are those there. "
        + how_to_install(project.root, project.interpreter.found_by)
    )
    return msgspec.structs.replace(found, warnings=(*found.warnings, warning))


def _start_of(source: Source, surroundings: Surroundings) -> Start:
    return Start.of(source.python, source.kind, surroundings.environment)
