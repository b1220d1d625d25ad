"""The only place that starts other programs: argv lists, a deadline, and their children end with
them.

git's argv is composed in `bundler.git`, docker's in `bundler.artifacts.image.engine`, pex's in
`bundler.artifacts.python.pex`; all of them run through here.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import msgspec

from bundler.errors import Bug, Interrupted, ToolFailed, signal_of

DEFAULT_TIMEOUT_SECONDS = 120.0
# How often to check: a build takes seconds, a hundred checks well under a millisecond.
_POLL_SECONDS = 0.05
_ENDING_SECONDS = 10.0
_running: ContextVar[_Running | None] = ContextVar("running", default=None)

_Result = TypeVar("_Result")


class Completed(msgspec.Struct, frozen=True):
    """The result of a program."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
) -> Completed:
    """Runs a program to its end and returns what it printed, whatever its exit code.

    timeout: in seconds; at its end the program and its children are killed.
    Raises `ToolFailed` if it cannot be started or does not end in time.
    """
    started = _start(
        argv,
        cwd,
        env,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        output=subprocess.PIPE,
        errors=subprocess.PIPE,
    )
    with started as process, _ending_with(process):
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired as error:
            raise ToolFailed(f"{argv[0]} did not finish within {timeout:g} s.") from error
        finally:
            end_group(process)
    return Completed(process.returncode, stdout, stderr)


class _Running:
    """The programs that threads of a `stoppable` block run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self.are_stopped = False

    def add(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.add(process)
            if self.are_stopped:
                end_group(process)

    def remove(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.remove(process)

    def stop(self) -> None:
        with self._lock:
            self.are_stopped = True
            for process in self._processes:
                end_group(process)


@contextmanager
def _ending_with(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Raises `Interrupted` if the `stoppable` block of this thread ends before the process."""
    running = _running.get()
    if running is None:
        yield
        return
    running.add(process)
    try:
        yield
    finally:
        running.remove(process)
    if running.are_stopped:
        _running.set(None)  # what cleans up may run programs, too
        raise Interrupted(signal.SIGINT)


@contextmanager
def stoppable() -> Iterator[Context]:
    """A context for threads that run programs; when the block ends, so do these programs."""
    context, running = copy_context(), _Running()
    context.run(_running.set, running)
    try:
        yield context
    finally:
        running.stop()


async def in_thread(work: Callable[..., _Result], *arguments: object) -> _Result:
    """Like `asyncio.to_thread`; if it is cancelled, programs that the work runs end."""
    import asyncio

    with stoppable() as context:
        return await asyncio.to_thread(context.run, work, *arguments)


def check(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
) -> bytes:
    """Like `run`, for programs that must succeed: returns their stdout.

    Raises `ToolFailed` with the last line of what the program said for any other exit code.
    """
    done = run(argv, env=env, timeout=timeout)
    if done.exit_code:
        said = last_word(done.stderr.decode(errors="replace"))
        raise ToolFailed(
            f"{argv[0]} failed with exit code {done.exit_code}" + (f": {said}" if said else ".")
        )
    return done.stdout


def last_word(output: str) -> str:
    """The last line of what a program printed before it failed; empty if it printed nothing.

    After its error, docker prints how to get help.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    helps = ("Run 'docker ", "See 'docker ", "Usage:  docker ")
    while len(lines) > 1 and lines[-1].startswith(helps):
        lines.pop()
    return lines[-1] if lines else ""


def pass_through(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    fill: Callable[[BinaryIO], None] | None = None,
    stdout: int | None = None,
    said: Callable[[str], None] | None = None,
) -> int:
    """Runs a program on the user's own terminal and returns its exit code.

    fill: writes what the program reads, instead of the terminal; it may stop reading early. stdout:
    a descriptor for the program's data, instead of the terminal. said: takes each other line that
    it prints, instead of the terminal. Ctrl-C reaches it through the terminal; `end_group` passes
    on SIGTERM.
    """
    stdin = None if fill is None else subprocess.PIPE
    output, errors = stdout, None
    if said is not None:
        merged = (subprocess.PIPE, subprocess.STDOUT)
        output, errors = merged if stdout is None else (stdout, subprocess.PIPE)
    started = _start(argv, cwd, env, stdin=stdin, output=output, errors=errors, session=False)
    with started as process:
        try:
            if process.stdin is not None and fill is not None:
                with suppress(BrokenPipeError):
                    fill(cast("BinaryIO", process.stdin))
                with suppress(BrokenPipeError):
                    process.stdin.close()
            if said is not None:
                for line in process.stderr or process.stdout or ():
                    said(line.decode(errors="replace").rstrip())
            return process.wait()
        except BaseException:
            _terminate(process)
            raise


def _terminate(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    process.kill()


@contextmanager
def dial(
    argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None
) -> Iterator[socket.socket]:
    """Starts a program with a conversation over its stdin and stdout; returns our end of it.

    The program ends with the context.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            line = theirs.fileno()
            process = _start(argv, None, env, stdin=line, output=line, errors=subprocess.DEVNULL)
        try:
            yield ours
        finally:
            end_group(process)


class ForkedProcess:
    """A forked process, used like a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._ended(os.WNOHANG)

    def wait(self) -> int:
        """The exit code, once it has ended."""
        ended = self._ended(0)
        return ended if ended is not None else self.wait()

    def _ended(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


class Logged:
    """A program in its own session that runs with its stderr in a file."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        cwd: Path,
        env: Mapping[str, str],
        forked: Callable[[], int] | None = None,
    ) -> None:
        """forked: what runs instead in a fork of this process, if that is possible; returns an
        exit code.

        Raises `ToolFailed` if the program cannot be started.
        """
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # `end` closes it
        with log.open("wb") as errors:
            output = (self._output.fileno(), errors.fileno())
            fork = _fork(forked, cwd, env, output) if forked is not None else None
            self.process = fork or _start(
                argv, cwd, env, stdin=subprocess.DEVNULL, output=output[0], errors=output[1]
            )

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def end(self) -> bytes:
        """Ends it with everything that it started. Returns what it has printed."""
        end_group(self.process)
        with self._output as output:
            output.seek(0)
            return output.read()

    @staticmethod
    def ask_to_end(processes: Iterable[Logged]) -> None:
        """Asks programs to end, with everything that they started, and waits for that."""
        running = [each for each in processes if each.poll() is None]
        for each in running:
            with suppress(ProcessLookupError):
                os.killpg(each.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _ENDING_SECONDS
        while any(each.poll() is None for each in running) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def can_fork() -> bool:
    """Whether a fork of this process can go on: on Linux, if this process has one thread."""
    try:
        return sys.platform == "linux" and len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _fork(
    work: Callable[[], int], cwd: Path, env: Mapping[str, str], output: tuple[int, int]
) -> ForkedProcess | None:
    """Does the work in a fork, in the surroundings that a program would have there.

    None if it cannot fork, or the program could not start there.
    """
    if not cwd.is_dir():
        return None
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Before the fork has its own session, a signal would run this process's cleanup in it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        pid = os.fork()
    except OSError:
        pid = -1
    if pid:
        return _forked(pid, mask)
    code = Bug.exit_code
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(output[0], 1)
        os.dup2(output[1], 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        code = work()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException as error:  # noqa: BLE001  # not in the code that forked
        if number := signal_of(error):
            code = Interrupted(number).exit_code
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(code)


def _forked(pid: int, mask: set[int | signal.Signals]) -> ForkedProcess | None:
    """The fork, which nobody else ends yet if a signal has been waiting. pid: -1 without a fork."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    except BaseException:
        if pid > 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    return ForkedProcess(pid) if pid > 0 else None


def end_group(process: subprocess.Popen[bytes] | ForkedProcess) -> None:
    """Kills a program that was started in its own session, and everything that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def require(program: str) -> None:
    """Raises `ToolFailed` if a program is not installed, as running it does."""
    if shutil.which(program) is None:
        raise _not_found(program, program)


def _not_found(missing: str, program: str) -> ToolFailed:
    return ToolFailed(f"{missing} was not found.", hint=f"Install {program}, or put it on PATH.")


def _start(
    argv: Sequence[str | os.PathLike[str]],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    *,
    stdin: int | None,
    output: int | None,
    errors: int | None,
    session: bool = True,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=output,
            stderr=errors,
            start_new_session=session,
        )
    except FileNotFoundError as error:
        missing = cwd if cwd is not None and not cwd.is_dir() else argv[0]
        raise _not_found(str(missing), str(argv[0])) from error
    except OSError as error:
        raise ToolFailed(f"{argv[0]} cannot be started: {error.strerror}.") from error
