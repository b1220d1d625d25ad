"""Asks git through GitPython: identity, remotes, hooks, listed history, the demo's commit.

Only GitPython's runner is used (`git.cmd.Git.execute`). Its objects and its index reader ignore
``GIT_INDEX_FILE``, and raise an error for an index of version 4, a split or a sparse one, SHA-256,
and names that are not UTF-8.

The guard does not use it, except to list the whole history: importing GitPython takes 100 ms of
CPU. At a commit the guard takes 16 ms in total, and 40 ms if it has to ask git three questions.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from threading import Thread
from typing import IO, TYPE_CHECKING, Any

from bundler.system import fast_process
from bundler.system.fast_process import Answer, Command, too_slow
from bundler.system.process import end_group

if TYPE_CHECKING:
    from git.cmd import Git

_ENV = "/usr/bin/env"
_IMPORTING = {"GIT_PYTHON_GIT_EXECUTABLE": os.devnull, "GIT_PYTHON_REFRESH": "quiet"}


def run(
    commands: Sequence[Command],
    env: Mapping[str, str],
    timeout: float,
    is_slow: Callable[[], None],
) -> list[Answer]:
    """As `fast_process.run_concurrently`, for git."""
    with ExitStack() as stack:
        started = [stack.enter_context(_started(command, env)) for command in commands]
        return [_answer(process, timeout, is_slow) for process in started]


@contextmanager
def _started(command: Command, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """git, in its own process group, which ends with the block."""
    # GitPython adds to the inherited environment and cannot remove anything from it.
    unset = [word for name in sorted(os.environ.keys() - env.keys()) for word in ("-u", name)]
    argv = [_ENV, *unset, command.program, *map(os.fsdecode, command.arguments)]
    started: Any = gitpython().execute(
        argv, istream=subprocess.PIPE, as_process=True, env=dict(env), start_new_session=True
    )
    process: subprocess.Popen[bytes] = started.proc
    with process:
        try:
            # Not by `communicate`: after a timeout, it passes on only what the pipe had room for.
            stdin, process.stdin = process.stdin, None
            Thread(target=_feed, args=(stdin, command.stdin), daemon=True).start()
            yield process
        finally:
            if process.poll() is None:
                end_group(process)


def _feed(stdin: IO[bytes], data: bytes) -> None:
    with suppress(BrokenPipeError), stdin:  # it has read enough; its exit code says why
        stdin.write(data)


def _answer(
    process: subprocess.Popen[bytes], timeout: float, is_slow: Callable[[], None]
) -> Answer:
    deadline = time.monotonic() + timeout
    wait = min(timeout, fast_process.PATIENCE_SECONDS)
    while True:
        try:
            stdout, stderr = process.communicate(timeout=wait)
            return Answer(process.returncode, stdout, stderr)
        except subprocess.TimeoutExpired as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise too_slow("git", timeout) from error
            is_slow()
            wait = left


@cache
def gitpython() -> Git:
    """GitPython's runner.

    Its import runs ``git version`` in the inherited environment, where ``GIT_TRACE`` names a file
    to write. So it is given no git to run; it ignores that.
    """
    before = {name: os.environ.get(name) for name in _IMPORTING}
    os.environ.update(_IMPORTING)
    try:
        from git.cmd import Git
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
    return Git()
