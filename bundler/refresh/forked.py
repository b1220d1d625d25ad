"""The worker of what only starts another program, as a fork of this process.

Such a worker needs no interpreter of the project's own, and a new one takes several times as long
to start as what it is started for.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from bundler.sources.worker import Worker

_FAILED = 70


class Forked:
    """As `subprocess.Popen` has it, as far as that is needed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, or minus the number of a signal; None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        return self._reap(0)

    def _reap(self, options: int) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                self._code = 0  # somebody else has reaped it
            else:
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def start(
    kind: str,
    commands: int,
    events: int,
    *,
    cwd: Path,
    environment: Mapping[str, str],
    output: Path,
) -> Forked:
    """Forks; only where `bundler.sources.worker.can_fork` says so. Raises `OSError`."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()  # else both would write what waits there
    printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        pid = os.fork()
        if pid == 0:
            _serve(kind, commands, events, cwd=cwd, environment=environment, printed=printed)
    finally:
        os.close(printed)
    return Forked(pid)


def _serve(
    kind: str,
    commands: int,
    events: int,
    *,
    cwd: Path,
    environment: Mapping[str, str],
    printed: int,
) -> NoReturn:
    code = _FAILED
    try:
        signal.set_wakeup_fd(-1)  # the parent's, whose loop would take our signals for its own
        os.setsid()
        gc.freeze()  # a collection would copy the pages of all that the parent has
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((nothing, printed, printed)):
            os.dup2(descriptor, number)
        _close_all_but((0, 1, 2, commands, events))
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        Worker(kind, commands, events).serve()
        code = 0
    finally:
        os._exit(code)


def _close_all_but(kept: tuple[int, ...]) -> None:
    """Other pipes of the parent's: who reads there would wait for us, too."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with suppress(OSError):  # that of the listing is closed already
                os.close(int(name))
