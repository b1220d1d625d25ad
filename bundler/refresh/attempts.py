"""The refresh of one key: attempts within a deadline, retried if a retry can help."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from bundler.errors import BadData, BundlerError, CredentialsRefused, Unavailable
from bundler.listener import KeyProgress, Listener
from bundler.project.options import DEFAULT_ATTEMPTS, DEFAULT_TIMEOUT_SECONDS, KeyOptions
from bundler.refresh import vendors
from bundler.refresh.checks import LEFT_OUT, Baseline, CheckedState, check
from bundler.refresh.discovery import LoadedSource
from bundler.refresh.model import Component
from bundler.refresh.outcome.classify import failure_of, of_command, of_exchange
from bundler.refresh.outcome.exchanges import Report, read, timestamp_of
from bundler.refresh.outcome.findings import Failure, Wording
from bundler.refresh.secrets import Secrets
from bundler.refresh.validation import validate
from bundler.refresh.watching import watched
from bundler.refresh.workers import Write
from bundler.state.manifest import KeyRefresh
from bundler.system import process
from bundler.system.atomic import io_errors
from bundler.system.retries import attempts
from bundler.system.times import reproducible_now

# Waits between attempts: from the first to the longest, doubled each time, plus jitter.
_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 5.0
_JITTER_SECONDS = 0.3
_LOG_LINES = 20
_LOG_BYTES = 16 * 1024
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class KeyJob(msgspec.Struct, frozen=True):
    """A key to fetch. is_planned: for a plan, which shows what has shrunk instead of failing."""

    owner: KeyOwner
    component: Component
    source: LoadedSource
    options: KeyOptions
    baseline: Baseline | None
    is_planned: bool = False

    @property
    def timeout(self) -> float:
        return self.options.timeout or DEFAULT_TIMEOUT_SECONDS

    @property
    def attempts(self) -> int:
        return self.options.attempts or DEFAULT_ATTEMPTS


class Fetched(msgspec.Struct, frozen=True):
    """A state that passed every check.

    environment: the variables that were read for it. skew: seconds by which the server's clock is
    ahead of ours. notes: which failed requests were accepted, and why.
    """

    checked: CheckedState
    environment: tuple[str, ...]
    skew: float
    attempts: int
    seconds: float
    notes: tuple[str, ...] = ()

    def refresh_of(self, key: str) -> KeyRefresh:
        """How the state of this key was made, for the run record."""
        now = reproducible_now()
        return KeyRefresh(
            key,
            attempts=self.attempts,
            fetched=now,
            confirmed=now,
            environment_variables=self.environment,
        )


class KeyFailedError(Exception):
    """A key could not be refreshed. Contains what to report.

    log: the part of the component's output to show. output: the complete output, up to a limit.
    """

    def __init__(
        self,
        error: BundlerError,
        attempts: int,
        log: tuple[str, ...] = (),
        output: tuple[str, ...] = (),
    ) -> None:
        super().__init__(error.what)
        self.error = error
        self.attempts = attempts
        self.log = log
        self.output = output


class KeyOwner(Protocol):
    """What a key is fetched for."""

    def key_directory(self, key: str) -> Path:
        """A new, empty key directory; the component writes ``state`` into it."""

    def take(self, job: KeyJob, fetched: Fetched, listener: Listener) -> None:
        """Accepts a fetched state."""

    def take_stale(self, job: KeyJob, failed: KeyFailedError, listener: Listener) -> bool:
        """Whether an older state is used instead."""


class _AttemptFailedError(Exception):
    """One failed attempt; the retry decides what follows."""

    def __init__(self, failure: Failure, attempt: _WriteCall) -> None:
        super().__init__(failure.error.what)
        self.failure = failure
        self.attempt = attempt


async def fetch(job: KeyJob, scratch: Path, listener: Listener) -> Fetched:
    """Refreshes one key into the staging area. Raises `KeyFailedError`."""
    began = time.monotonic()
    earlier: list[Failure] = []
    retrying = attempts(
        on=partial(_next, job, began + job.timeout, listener, earlier),
        attempts=job.attempts,
        timeout=None,  # the deadline limits the attempts themselves, too
        wait_initial=_FIRST_WAIT_SECONDS,
        wait_max=_LONGEST_WAIT_SECONDS,
        wait_jitter=_JITTER_SECONDS,
    )
    try:
        async for attempt in retrying:
            with attempt:
                number = attempt.num
                listener.key(KeyProgress(job.component.key, "fetching", number))
                return await _WriteCall.of(job, scratch, number).run(began, listener)
    except _AttemptFailedError as failed:
        error = _telling(failed.failure, earlier)
        raise failed.attempt.failed(error, seen=failed.failure.seen) from failed
    raise AssertionError  # stamina ends with a result or the last exception


def _telling(failure: Failure, earlier: Sequence[Failure]) -> BundlerError:
    """The failure to report: if the deadline ended a later attempt, the first one says more."""
    error = failure.error
    if not failure.late or not earlier:
        return error
    problem = f"{error.problem.rstrip('.')}; the previous attempt: {earlier[-1].error.problem}"
    return type(error).of_key(error.key or "", problem, hint=error.hint)


def _next(
    job: KeyJob,
    deadline: float,
    listener: Listener,
    earlier: list[Failure],
    error: Exception,
) -> bool | float:
    """Whether there is another attempt; a number is how many seconds to wait for it."""
    if not isinstance(error, _AttemptFailedError):
        return False
    failure, number = error.failure, error.attempt.number
    most = {"no": 1, "once": 2, "yes": job.attempts}[failure.retry]
    if number >= min(most, job.attempts):
        return False
    if time.monotonic() + max(failure.wait or 0.0, _FIRST_WAIT_SECONDS) >= deadline:
        return False
    earlier.append(failure)
    key = job.component.key
    listener.key(KeyProgress(key, "retrying", number, detail=failure.error.problem))
    return failure.wait or True


class _WriteCall(msgspec.Struct, frozen=True):
    """One call of the component. number: from 1."""

    job: KeyJob
    write: Write
    number: int

    @classmethod
    def of(cls, job: KeyJob, scratch: Path, number: int) -> _WriteCall:
        key = job.component.key
        directory = job.owner.key_directory(key)
        # On the same disk, so that a program can rename it. Its path has the same prefix as the
        # staged state's: no state may contain either.
        previous = directory.with_name(f"{directory.name}@previous") / "state"
        name = f"{directory.name[:100]}-{id(job)}-{number}"
        write = Write(
            key=key,
            root=job.source.source.project.root,
            state_path=directory / "state",
            report=scratch / f"{name}.report",
            log=scratch / f"{name}.log",
            leave_out=(*LEFT_OUT, *job.options.exclude),
            keep=job.options.include,
            previous_path=previous if job.source.source.starts_from_previous(key) else None,
        )
        return cls(job, write, number)

    @property
    def secrets(self) -> Secrets:
        return self.job.source.surroundings.secrets

    async def run(self, began: float, listener: Listener) -> Fetched:
        """Raises `_AttemptFailedError`, or `KeyFailedError` for a state that may not be
        published."""
        job, write = self.job, self.write
        if write.previous_path is not None:
            await asyncio.to_thread(_copy_previous, job, write.previous_path)
        async with watched(job.component.key, self.number, write.state_path.parent, listener):
            failure = await self._call(began + job.timeout)
        if failure is not None:
            raise _AttemptFailedError(failure, self)
        report = self._report()
        checked = await self._check(report)
        normal = vendors.kind_of(job.component).expected
        names = {*job.component.environment_variables, *report.environment}
        return Fetched(
            checked=checked,
            environment=tuple(sorted(names)),
            skew=_skew(report),
            attempts=self.number,
            seconds=time.monotonic() - began,
            notes=tuple(vendors.notes(report.expected, normal, job.options.allow_http)),
        )

    async def _call(self, deadline: float) -> Failure | None:
        """None if it succeeded."""
        job, write = self.job, self.write
        status = await job.source.worker.write_within(write, deadline - time.monotonic())
        late = job.timeout if status is None else None
        status = status or 0
        by_exit = job.source.source.judged_by == "exit" and late is None and os.WIFEXITED(status)
        report = self._report()
        if by_exit and status and not report.raised:  # else the program could not be started
            output = "\n".join(_tail(write.log, self.secrets))
            code = os.WEXITSTATUS(status)
            return of_command(job.component, code, output, secrets=self.secrets)
        if by_exit and not (report.raised or report.unfinished):
            return None
        return failure_of(
            job.component,
            report,
            secrets=self.secrets,
            deadline=late,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        ) or self._lost(report)

    def _report(self) -> Report:
        """What happened, compared with what may fail: by configuration, or for this kind."""
        kind = vendors.kind_of(self.job.component)
        normal = tuple(one.pattern for one in kind.expected)
        report = read(self.write.report, (*self.job.options.allow_http, *normal))
        return report if kind.whole_pages else msgspec.structs.replace(report, unfollowed=())

    def _lost(self, report: Report) -> Failure | None:
        """A failed request that would be normal if the last state did not have its subject."""
        job = self.job
        if job.baseline is None:
            return None
        before = job.baseline.directory / "state"
        normal = vendors.kind_of(job.component).expected
        with io_errors(before):
            exchange = vendors.lost(report.expected, normal, job.options.allow_http, before)
        if exchange is None:
            return None
        wording = Wording(job.component, self.secrets, report.environment)
        though = ", although the last state has it"
        return wording.partial(of_exchange(exchange), exchange, though)

    async def _check(self, report: Report) -> CheckedState:
        try:
            return await process.in_thread(self._judge, report)
        except BundlerError as error:
            raise self.failed(error) from error
        except RecursionError as error:  # a program that loads it would fail the same way
            key = self.job.component.key
            told = BadData.of_key(
                key, "the state is nested too deeply.", hint="Check what the API returns."
            )
            raise self.failed(told) from error

    def _judge(self, report: Report) -> CheckedState:
        job, write = self.job, self.write
        # A state that has shrunk may be judged later: by its definitions
        # (`bundler.refresh.removals`), or by the reader of the plan.
        counts = job.options.limits_assets and job.source.source.kind == "dagster"
        checked = check(
            job.component,
            write.state_path.parent,
            job.options,
            secrets=self.secrets,
            baseline=job.baseline,
            copies=report.copies,
            written_at=job.source.worker.written_at(write),
            counts_definitions=counts or job.is_planned,
        )
        validate(
            job.component.key,
            write.state_path,
            job.options,
            root=write.root,
            environment=job.source.surroundings.environment,
            secrets=self.secrets,
        )
        return checked

    def failed(self, error: BundlerError, *, seen: bool = False) -> KeyFailedError:
        """seen: whether the reason was seen on the wire; a traceback would hide it."""
        after = f", after {self.number} attempts." if self.number > 1 else "."
        problem = error.problem.rstrip(".") + after
        again = type(error).of_key(self.job.component.key, problem, hint=error.hint)
        quiet = seen or isinstance(error, (Unavailable, CredentialsRefused))
        output = tuple(_tail(self.write.log, self.secrets, None))
        return KeyFailedError(again, self.number, () if quiet else output[-_LOG_LINES:], output)


def _copy_previous(job: KeyJob, path: Path) -> None:
    """A copy of the last good state, which the command may change or move; a new one for each
    attempt."""
    with io_errors(path):
        if path.parent.exists():
            shutil.rmtree(path.parent)
        if job.baseline is not None:
            shutil.copytree(job.baseline.directory, path.parent, copy_function=shutil.copyfile)


def _skew(report: Report) -> float:
    """Seconds by which a server's clock differs from ours, according to its last answer."""
    theirs = timestamp_of(report.last.date) if report.last else None
    return 0.0 if theirs is None else theirs - time.time()


def _tail(log: Path, secrets: Secrets, most: int | None = _LOG_LINES) -> list[str]:
    """The last lines of the component's output, without secrets."""
    before = secrets.longest
    try:
        with open(log, "rb") as stream:
            skipped = max(0, log.stat().st_size - _LOG_BYTES - before)
            stream.seek(skipped)
            text = _COLOURS.sub("", stream.read().decode("utf-8", "replace"))
    except OSError:
        return []
    if skipped:  # the first line is incomplete: a secret in it might not be recognised
        text = secrets.rest(text, before).partition("\n")[2]
    lines = secrets.redact(text).rstrip().splitlines()
    return lines if most is None else lines[-most:]
