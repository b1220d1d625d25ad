"""Starts programs fast, several concurrently, and reads their output: for the guard's few
milliseconds.

Everything else uses `system.process` and with it ``subprocess``, which takes longer to import than
git takes to answer, and the guard runs at every commit of every developer. Here `os.posix_spawn`
starts the programs and one poll loop handles their input and output.
"""

from __future__ import annotations

import os
import select
import time

from bundler.errors import ToolFailed
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


PATIENCE_SECONDS = 5.0
_READ_BYTES = 1 << 16
# POSIX fixes these numbers; the module `signal` creates enumerations of all of them on import.
_SIGPIPE = 13
_SIGKILL = 9


class Command(NamedTuple):
    """A program by its absolute path, its arguments after its own name, and its input."""

    program: str
    arguments: Sequence[str | bytes]
    stdin: bytes = b""


class Answer(NamedTuple):
    """A program's output and exit code."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class _Conversation:
    """One running program: its remaining input, and its output so far."""

    __slots__ = ("descriptors", "name", "pid", "said", "to_write")

    def __init__(self, command: Command, env: Mapping[str, str]) -> None:
        self.name = os.path.basename(command.program)
        pipes = [os.pipe() for _ in range(3)]
        (stdin, feed), (out, stdout), (err, stderr) = pipes
        actions: list[tuple[int, int, int] | tuple[int, int]] = [
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
        ]
        try:
            self.pid = os.posix_spawn(
                command.program,
                [self.name, *command.arguments],
                env,
                file_actions=actions,
                setpgroup=0,
                setsigdef=[_SIGPIPE],
            )
        except OSError as error:
            for descriptor in (feed, out, err):
                os.close(descriptor)
            raise ToolFailed(f"{command.program} cannot be started: {error.strerror}.") from error
        finally:
            for descriptor in (stdin, stdout, stderr):
                os.close(descriptor)
        self.to_write = memoryview(command.stdin)
        self.said: dict[int, list[bytes]] = {out: [], err: []}
        self.descriptors = [feed, out, err]
        os.set_blocking(feed, False)

    def feed(self, poll: select.poll) -> None:
        try:
            self.to_write = self.to_write[os.write(self.descriptors[0], self.to_write) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it has read enough; its exit code says why
            self.to_write = memoryview(b"")
        if not self.to_write:
            self.close(self.descriptors[0], poll)

    def hear(self, descriptor: int, poll: select.poll) -> None:
        if said := os.read(descriptor, _READ_BYTES):
            self.said[descriptor].append(said)
        else:
            self.close(descriptor, poll)

    def close(self, descriptor: int, poll: select.poll) -> None:
        poll.unregister(descriptor)
        self.descriptors[self.descriptors.index(descriptor)] = -1
        os.close(descriptor)

    def answer(self) -> Answer:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        stdout, stderr = self.said.values()
        return Answer(status, b"".join(stdout), b"".join(stderr))

    def end(self) -> None:
        for descriptor in self.descriptors:
            if descriptor >= 0:
                os.close(descriptor)
        try:
            os.killpg(self.pid, _SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError, PermissionError):
            pass


def run_concurrently(
    commands: Sequence[Command],
    env: Mapping[str, str],
    timeout: float,
    is_slow: Callable[[], None] | None = None,
) -> list[Answer]:
    """Runs programs concurrently, each in its own process group.

    timeout: in seconds, for all of them; then they are killed. is_slow: called once if they take
    more than a few seconds.
    Raises `ToolFailed` if one cannot be started or exceeds the timeout.
    """
    running: list[_Conversation] = []
    try:
        running.extend(_Conversation(command, env) for command in commands)
        _listen(running, timeout, is_slow)
        answers = []
        while running:
            answers.append(running[0].answer())
            running.pop(0)
    except BaseException:
        for conversation in running:
            conversation.end()
        raise
    return answers


def too_slow(name: str, timeout: float) -> ToolFailed:
    return ToolFailed(
        f"{name} did not answer within {timeout:g} s.",
        hint="Something may block it: a FIFO as an ignore file, a lock, a network disk.",
    )


def _listen(
    running: Sequence[_Conversation], timeout: float, is_slow: Callable[[], None] | None
) -> None:
    deadline = time.monotonic() + timeout
    patience = deadline - timeout + PATIENCE_SECONDS if is_slow else deadline
    poll = select.poll()
    owners = {}
    for conversation in running:
        feed, out, err = conversation.descriptors
        for descriptor, event in (
            (feed, select.POLLOUT),
            (out, select.POLLIN),
            (err, select.POLLIN),
        ):
            owners[descriptor] = conversation
            poll.register(descriptor, event)
    while any(descriptor >= 0 for each in running for descriptor in each.descriptors):
        now = time.monotonic()
        if now >= deadline:
            raise too_slow(running[0].name, timeout)
        if is_slow and now >= patience:
            is_slow()
            is_slow, patience = None, deadline
        for descriptor, _ in poll.poll(max(0.0, min(patience, deadline) - now) * 1000):
            owner = owners[descriptor]
            if descriptor == owner.descriptors[0]:
                owner.feed(poll)
            else:
                owner.hear(descriptor, poll)
