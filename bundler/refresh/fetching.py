"""Fetches many keys concurrently, within limits, and reports all that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from bundler.errors import BundlerError, Unavailable, raise_all
from bundler.listener import KeyProgress, Listener
from bundler.project.options import DEFAULT_JOBS, DEFAULT_TOTAL_TIMEOUT_SECONDS, RefreshOptions
from bundler.refresh.attempts import KeyFailedError, KeyJob, fetch
from bundler.refresh.directories import Directory
from bundler.refresh.model import Component
from bundler.refresh.reporting import declared_at, write_failure_log
from bundler.refresh.vendors import kind_of
from bundler.system.wording import counted


async def fetch_all(
    jobs: Sequence[KeyJob], directories: Sequence[Directory], scratch: Path, listener: Listener
) -> None:
    """Fetches every key and passes it to its owner, then raises for those that failed.

    The limits of the run are those of the first directory.
    """
    if not jobs:
        return
    listener.phase(f"Refreshing {counted(len(jobs), 'key')}")
    listener.expect(len(jobs))
    options = directories[0].options
    seconds = options.total_timeout or DEFAULT_TOTAL_TIMEOUT_SECONDS
    fetching = _Fetching(options, len(jobs), scratch, listener)
    tasks = {asyncio.ensure_future(fetching.one(job)): job for job in jobs}
    try:
        done, late = await asyncio.wait(tasks, timeout=seconds)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failed = [(tasks[task], error) for task in tasks if task in done and (error := task.result())]
    failed += [(tasks[task], _too_late(tasks[task].component.key, seconds)) for task in late]
    if failed:
        for job, error in failed:
            error.where = declared_at(job.source.source, job.component)
        raise_all(
            [error for _, error in failed],
            f"{len(failed)} of {counted(len(jobs), 'key')} failed; nothing was published, the "
            "previous state is unchanged.",
            write_failure_log(jobs[0].source.source.project.name, fetching.outputs),
        )


def _too_late(key: str, seconds: float) -> BundlerError:
    return Unavailable.of_key(
        key,
        f"the refresh did not finish within {seconds:g} s.",
        hint="Increase --total-timeout, or find out what is slow.",
    )


class _Fetching:
    """Keys that are fetched concurrently, as many as allowed: in total, and of one kind.

    A failure is reported as soon as it is final; the caller reports why at the end. Running keys
    continue, so that one run names everything that has to be fixed. outputs: of those that failed.
    """

    def __init__(
        self, options: RefreshOptions, keys: int, scratch: Path, listener: Listener
    ) -> None:
        self.outputs: dict[str, Sequence[str]] = {}
        self._options = options
        self._scratch = scratch
        self._listener = listener
        self._under_way = keys
        self._told_what_follows = False
        self._all = asyncio.Semaphore(options.jobs or DEFAULT_JOBS)
        self._kinds: dict[str, asyncio.Semaphore] = {}

    async def one(self, job: KeyJob) -> BundlerError | None:
        """Fetches a key and applies the result. Returns its failure, if it is final."""
        try:
            async with self._slots(job.component), self._all:
                fetched = await fetch(job, self._scratch, self._listener)
            job.owner.take(job, fetched, self._listener)
        except KeyFailedError as failed:
            if job.owner.take_stale(job, failed, self._listener):
                return None
            return self._tell(job.component.key, failed)
        except BundlerError as error:
            return self._tell(job.component.key, KeyFailedError(error, 0))
        finally:
            self._under_way -= 1
        return None

    def _slots(self, component: Component) -> asyncio.Semaphore:
        """Those of its kind: as configured, else as many as its vendor tolerates."""
        kind = kind_of(component)
        configured = (
            (pattern, jobs)
            for pattern, jobs in self._options.kind_jobs.items()
            if any(fnmatchcase(name, pattern) for name in component.kinds)
        )
        usual = (kind.pattern, kind.jobs or self._options.jobs or DEFAULT_JOBS)
        pattern, jobs = next(configured, usual)
        return self._kinds.setdefault(pattern, asyncio.Semaphore(jobs))

    def _tell(self, key: str, failed: KeyFailedError) -> BundlerError:
        others = self._under_way - 1
        self.outputs[key] = failed.output
        title = f"{failed.error.title} ({failed.error.exit_code})"
        self._listener.key(KeyProgress(key, "failed", failed.attempts, detail=title))
        for line in failed.log:
            self._listener.note(f"{key} | {line}")
        if others and not self._told_what_follows:
            self._told_what_follows = True
            keys = "other key continues" if others == 1 else f"{others} other keys continue"
            self._listener.note(f"Nothing will be published. The {keys}, to find every failure.")
        return failed.error
