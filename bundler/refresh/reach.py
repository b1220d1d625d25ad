"""Reaches every external system with the credentials of a refresh, without refreshing.

Only a component knows its system's address and how it logs in. So each is *rehearsed*: it begins to
write its state, into a temporary folder, and its process ends with the first answer that shows that
the system exists and accepts the credentials: one read beyond what fetches a token, or a few other
requests. That takes a request or two, and failures are classified as in a refresh.

A key whose requests the recorder cannot see (gRPC, pycurl, any other program) can configure ``reach
= ["curl", …]``; otherwise the hosts in a program's own arguments are connected to.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from bundler.errors import BundlerError, Unavailable
from bundler.listener import SILENT
from bundler.project.options import KeyOptions, RefreshOptions
from bundler.refresh.discovery import LoadedSource, loaded_sources
from bundler.refresh.model import Component, Looked, Reached
from bundler.refresh.outcome.classify import failure_of, of_command
from bundler.refresh.outcome.exchanges import Report, read
from bundler.refresh.run import run_to_end
from bundler.refresh.vendors import kind_of
from bundler.refresh.workers import Write
from bundler.state.statedir import sanitize_key
from bundler.system import process

if TYPE_CHECKING:
    from bundler.project.projects import Project

REACH_SECONDS = 10.0
_JOBS = 8


def look(projects: Sequence[Project], *, seconds: float = REACH_SECONDS) -> Looked:
    """Finds the components, and reaches the systems of all keys concurrently.

    seconds: the timeout of each key. Raises as a refresh does where the components cannot be found.
    """
    return run_to_end(lambda _: _look(projects, seconds))


async def _look(projects: Sequence[Project], seconds: float) -> Looked:
    slots = asyncio.Semaphore(_JOBS)
    async with loaded_sources(projects, RefreshOptions(), SILENT) as (loaded, scratch):
        found = tuple(item.found for item in loaded)
        tasks = []
        for item in loaded:
            options = item.source.project.config.refresh
            for key, component in {c.key: c for c in item.found.components}.items():
                # dbt works on files; a git host is only asked during a refresh.
                if component.refused is None and not kind_of(component).runs_dbt:
                    attempt = _ReachProbe(component, item, options.of_key(key), scratch, seconds)
                    tasks.append(attempt.run(slots))
        return Looked(found, tuple(await asyncio.gather(*tasks)))


@dataclass(frozen=True)
class _ReachProbe:
    component: Component
    source: LoadedSource
    options: KeyOptions
    scratch: Path
    seconds: float

    async def run(self, slots: asyncio.Semaphore) -> Reached:
        async with slots:
            began = time.monotonic()
            try:
                hosts, how = await self._hosts()
            except BundlerError as failure:
                return Reached(self.component.key, (), "", time.monotonic() - began, failure)
            how = how if hosts else "nothing"
            return Reached(self.component.key, hosts, how, time.monotonic() - began)

    async def _hosts(self) -> tuple[tuple[str, ...], str]:
        """Those that answered, and how that was determined."""
        if self.options.reach:
            return await process.in_thread(self._by_command), "its own command"
        if self.source.source.judged_by == "exit":
            return await asyncio.to_thread(self._by_connecting), "a connection"
        return await self._by_rehearsal(), "a custom request"

    async def _by_rehearsal(self) -> tuple[str, ...]:
        write = self._write()
        status = await self.source.worker.write_within(write, self.seconds)
        late = self.seconds if status is None else None
        status = status or 0
        report = read(write.report, self.options.allow_http)
        if late is not None and not report.failed and (report.answered or not report.waiting):
            return _hosts(report)  # it answers, or has asked nobody yet, and is slow
        stopped = report.answered > 0 and not report.raised and not report.failed
        if late is not None or not (stopped or report.returned):
            failure = failure_of(
                self.component,
                report,
                secrets=self.source.surroundings.secrets,
                deadline=late,
                signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            )
            if failure is not None:
                raise failure.error
        return _hosts(report)

    def _write(self) -> Write:
        folder = self.scratch / f"reach-{id(self)}" / sanitize_key(self.component.key)
        folder.mkdir(parents=True)
        return Write(
            key=self.component.key,
            root=self.source.source.project.root,
            state_path=folder / "state",
            report=folder.parent / "reach.report",
            log=folder.parent / "reach.log",
            rehearsal=True,
        )

    def _by_command(self) -> tuple[str, ...]:
        secrets = self.source.surroundings.secrets
        argv = self.options.reach
        done = process.run(
            argv,
            cwd=self.source.source.project.root,
            env=self.source.surroundings.environment,
            timeout=self.seconds,
        )
        output = (done.stderr or done.stdout).decode("utf-8", "replace")
        program = msgspec.structs.replace(self.component, location=argv[0])
        failure = of_command(program, done.exit_code, output, secrets=secrets)
        if failure is not None:
            raise failure.error
        return tuple(host for host, _ in _addresses(argv)) or (argv[0],)

    def _by_connecting(self) -> tuple[str, ...]:
        entries = self.source.source.load["entries"]
        argv = next(entry["argv"] for entry in entries if entry["key"] == self.component.key)
        found = _addresses(argv)
        for host, secure in found:
            _connect(self.component.key, host, self.seconds, secure=secure)
        return tuple(host for host, _ in found)


def _hosts(report: Report) -> tuple[str, ...]:
    return (urlsplit(report.last.url).netloc,) if report.last and report.answered else ()


def _addresses(argv: Sequence[str]) -> list[tuple[str, bool]]:
    """HOST:PORT of every URL in a command line, and whether it uses TLS."""
    found: dict[tuple[str, bool], None] = {}
    for url in re.findall(r"https?://[^\s\"'<>]+", " ".join(argv)):
        try:
            parts = urlsplit(url)
            secure = parts.scheme == "https"
            port = parts.port or (443 if secure else 80)
        except ValueError:
            continue
        if parts.hostname and re.fullmatch(r"[\w.:-]+", parts.hostname):
            found[f"{parts.hostname}:{port}", secure] = None
    return list(found)


def _connect(key: str, address: str, seconds: float, *, secure: bool) -> None:
    """Raises `Unavailable` if nothing listens there, or its certificate is not trusted."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=seconds) as line:
            if secure:
                with ssl.create_default_context().wrap_socket(line, server_hostname=host):
                    pass
    except OSError as error:
        said = getattr(error, "verify_message", "") or error.strerror or "no answer in time"
        raise Unavailable.of_key(
            key,
            f"{address} is unreachable: {said}.",
            hint=f"Check that {address} is up and reachable from here.",
        ) from error
