"""Finds the components of projects: one worker per source, concurrently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bundler.errors import BundlerError, Unavailable, raise_all
from bundler.refresh.discovery_cache import CacheQuery
from bundler.refresh.forking import Forks, Start
from bundler.refresh.key_credentials import withheld
from bundler.refresh.model import Found, Source, found_of
from bundler.refresh.outcome.exchanges import links
from bundler.refresh.secret_values import named_files
from bundler.refresh.sources import load_error, sources_of
from bundler.refresh.surroundings import Surroundings, surroundings_of
from bundler.refresh.workers import WorkerProcess, launch

if TYPE_CHECKING:
    from bundler.project.options import Inside
    from bundler.project.projects import Project
    from bundler.refresh.inside import Image

_LOAD_SECONDS = 120.0

# Takes a query, the worker's answer, and what of it may be shown.
Keep = Callable[[CacheQuery, dict[str, Any], Found], None]


class LoadedSource(msgspec.Struct, frozen=True):
    """A source whose components are known, with the worker that writes their states."""

    source: Source
    found: Found
    worker: WorkerProcess
    surroundings: Surroundings


def _start(
    source: Source,
    surroundings: Surroundings,
    scratch: Path,
    image: Image | None,
    forks: Forks | None,
) -> WorkerProcess:
    """Starts a worker for this source, in an image or on this machine, without loading anything."""
    if image is not None:
        from bundler.refresh.inside import InsideWorker

        output = scratch / f"inside-{id(source)}.log"
        return InsideWorker(source, image, surroundings.environment, output)
    how = launch(
        _start_of(source, surroundings),
        cwd=source.project.root,
        output=scratch / "load.log",
        forks=forks,
    )
    return WorkerProcess(how, str(source.python))


def _start_of(source: Source, surroundings: Surroundings) -> Start:
    return Start.of(source.python, source.kind, surroundings.environment)


async def load_all(
    projects: Sequence[Project],
    scratch: Path,
    loaded: list[LoadedSource],
    *,
    named: Sequence[str] = (),
    excluded: Sequence[str] = (),
    inside: Inside | None = None,
    keep: Keep | None = None,
    forks: Forks | None = None,
) -> None:
    """Appends every source of the projects, with its worker running.

    keep: receives each answer, with what it depends on in its event. forks: where workers can be
    forked, which ends after them.

    The caller closes the workers, also after an error. Raises one error for all that failed.
    """
    image = None
    if inside is not None:
        from bundler.refresh.inside import Image

        image = await asyncio.to_thread(Image.find, inside)
    queried = []
    for project in projects:
        config = project.config.refresh
        queries = [CacheQuery.of(source) for source in sources_of(project)]
        surroundings = surroundings_of(
            project,
            named=(*named, *config.secrets),
            excluded=(*excluded, *config.not_secrets),
        )
        queried += [(query, surroundings) for query in queries]
    if keep is not None:  # what a fork's parent has read would be missing in its answer
        forks = None
    if forks is not None:
        forks.expect([_start_of(query.source, seen) for query, seen in queried])
    order = {id(query.source): number for number, (query, _) in enumerate(queried)}
    tasks = [
        _load(query, seen, scratch, loaded, image=image, keep=keep, forks=forks)
        for query, seen in queried
    ]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = []
    for result in results:
        if isinstance(result, BundlerError):
            failures.append(result)
        elif isinstance(result, BaseException):
            raise result
    raise_all(failures)
    # They finish in any order; the run record and the output keep that of the projects.
    loaded.sort(key=lambda item: order[id(item.source)])


async def _load(
    query: CacheQuery,
    surroundings: Surroundings,
    scratch: Path,
    loaded: list[LoadedSource],
    *,
    image: Image | None,
    keep: Keep | None,
    forks: Forks | None,
) -> None:
    source = query.source
    command = source.load
    if keep is not None:
        # What is withheld also depends on the files that variables name.
        named = named_files(surroundings.environment, source.project.root)
        command = {**command, "observed": (*query.files, *named)}
    worker = _start(source, surroundings, scratch, image, forks)
    try:
        event = await asyncio.wait_for(worker.load(command), _LOAD_SECONDS)
    except (asyncio.TimeoutError, TimeoutError) as error:
        await worker.close()
        raise Unavailable(
            f"Loading the components of {source.project.name} took longer than {_LOAD_SECONDS:g} "
            "s.",
            hint="The project may be blocked during import; to find out, run `dg list components`.",
        ) from error
    except BaseException:
        await worker.close()
        raise
    if event["event"] == "load-failed":
        await worker.close()
        name = image.inside.image if image is not None else None
        raise load_error(source, links(event["chain"]), surroundings.secrets, name)
    found = withheld(found_of(event), surroundings.secrets)
    loaded.append(LoadedSource(source, found, worker, surroundings))
    if keep is not None:
        keep(query, event, found)
