"""Workers of several projects, forked from one interpreter, see `bundler.worker.fork_server`.

An interpreter is shared only by projects whose workers would start with the same program and
exactly the same environment. Until it forks, it loads nothing of a project. A worker so differs
from one that was started by itself only in how long that took.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TypeAlias

import msgspec

from bundler.system.process import end_group

# The worker's file, next to this package.
START = Path(__file__).parent.parent / "worker" / "start.py"
# Each keeps an imported Dagster in memory.
_MOST_SERVERS = 4
# Variables with paths that the interpreter uses while it starts.
_OF_FOLDERS = {
    "HOME",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONPYCACHEPREFIX",
    "PYTHONUSERBASE",
}
# Where no project is: what leads there, the start of the interpreter took from its directory.
_NO_PROJECT = "/dev"
_GRACE_SECONDS = 0.3  # for one that still imports
_KILLED = b"-9\n"
_ANSWERS = 2  # the pid and the exit code
_READ_BYTES = 64
_REQUEST, _ACCEPTED, _REFUSED = b"?", b"y", b"n"
# A refresh needs five for each project, one more for a forked worker, and some for itself.
_DESCRIPTORS_PER_WORKER = 8
_DESCRIPTORS = 4  # those of `ForkServers.pass_on`


class Start(msgspec.Struct, frozen=True):
    """What determines a worker's interpreter until it loads its project."""

    python: str
    kind: str
    environment: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, python: Path, kind: str, environment: Mapping[str, str]) -> Start:
        return cls(str(python), kind, tuple(sorted(environment.items())))

    @property
    def is_shareable(self) -> bool:
        """Whether the current directory does not matter, and forking is safe."""
        given = [value for name, value in self.environment if value and name in _OF_FOLDERS]
        absolute = all(map(os.path.isabs, os.pathsep.join([self.python, *given]).split(os.pathsep)))
        return sys.platform == "linux" and self.kind != "command" and absolute


class ForkedWorker:
    """A forked worker, used like a `subprocess.Popen`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._said = b""

    @property
    def pid(self) -> int:
        """0 if there is no such process yet; then there will be none."""
        if not self._numbers(socket.MSG_DONTWAIT):
            self._connection.shutdown(socket.SHUT_RD)
        return self._numbers(socket.MSG_DONTWAIT)[0]

    def poll(self) -> int | None:
        """The exit code; None while the worker runs."""
        numbers = self._numbers(socket.MSG_DONTWAIT)
        return numbers[-1] if len(numbers) == _ANSWERS else None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. From then on its pid may be another process's."""
        self._connection.settimeout(timeout)
        exit_code = self._numbers()[-1]
        self._connection.close()
        return exit_code

    def _numbers(self, flags: int = 0) -> list[int]:
        """The pid and the exit code, as far as the server has said them.

        If the server has ended, so have its workers.
        """
        with suppress(BlockingIOError):
            while self._said.count(b"\n") < _ANSWERS:
                received = self._connection.recv(_READ_BYTES, flags)
                self._said += received or (_KILLED if self._said else b"0\n" + _KILLED)
        return [int(line) for line in self._said.split()]


class ForkServers:
    """Interpreters to fork from, started once a second worker needs them."""

    def __init__(self) -> None:
        self._needed: Counter[Start] = Counter()
        self._servers: dict[Start, tuple[subprocess.Popen[bytes], socket.socket]] = {}

    def expect(self, starts: Sequence[Start]) -> None:
        """Says which workers will be needed: a server for only one of a kind saves nothing."""
        self._needed.update(starts)

    def fork(
        self, start: Start, folder: Path, descriptors: tuple[int, int, int]
    ) -> ForkedWorker | None:
        """Returns a new worker, or None if it has to be started by itself.

        folder: where it works. descriptors: of its commands, its events and its output.
        """
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _DESCRIPTORS_PER_WORKER
        if self._needed.total() > most:
            return None
        ours, theirs = socket.socketpair()
        with theirs:
            if self.pass_on(start, folder, [*descriptors, theirs.fileno()]):
                return ForkedWorker(ours)
        ours.close()
        return None

    def pass_on(self, start: Start, folder: Path, descriptors: Sequence[int]) -> bool:
        """Whether a server got the request. descriptors: the last is that of a connection."""
        if not (start.is_shareable and self._needed[start] > 1 and folder.is_dir()):
            return False
        try:
            if start not in self._servers:
                if len(self._servers) == _MOST_SERVERS:
                    return False
                self._servers[start] = _start_server(start)
            socket.send_fds(self._servers[start][1], [os.fsencode(folder)], descriptors)
        except OSError:
            return False
        return True

    def serve(self, child: socket.socket) -> bool:
        """Answers a request of a `ParentForks`. Returns whether there can be more of them."""
        descriptors: Sequence[int] = ()
        try:
            _, descriptors, _, _ = socket.recv_fds(child, len(_REQUEST), _DESCRIPTORS)
            with child.makefile("rb") as rest:
                text, folder = json.loads(rest.readline())
            start = msgspec.convert(text, Start)
            self.expect([start])
            accepted = len(descriptors) == _DESCRIPTORS and self.pass_on(
                start, Path(folder), descriptors
            )
            child.send(_ACCEPTED if accepted else _REFUSED)
        except (OSError, ValueError):  # it has ended
            return False
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def forget(self) -> None:
        """In a forked process: these servers are its parent's."""
        for _, requests in self._servers.values():
            requests.close()
        self._servers.clear()

    def close(self) -> None:
        """Ends the servers, and with them their workers."""
        for process, requests in self._servers.values():
            requests.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_SECONDS)
            end_group(process)
        self._servers.clear()


class ParentForks:
    """What a forked process has: its parent decides and forks."""

    def __init__(self, parent: socket.socket) -> None:
        """parent: a connection to `ForkServers.serve`."""
        self._parent = parent

    def expect(self, starts: Sequence[Start]) -> None:
        """The parent counts what it is asked for."""

    def fork(
        self, start: Start, folder: Path, descriptors: tuple[int, int, int]
    ) -> ForkedWorker | None:
        """See `ForkServers`."""
        if not start.is_shareable:
            return None
        request = json.dumps([msgspec.to_builtins(start), str(folder)]).encode() + b"\n"
        ours, theirs = socket.socketpair()
        with theirs, suppress(OSError):
            socket.send_fds(self._parent, [_REQUEST], [*descriptors, theirs.fileno()])
            self._parent.sendall(request)
            if self._parent.recv(1) == _ACCEPTED:
                return ForkedWorker(ours)
        ours.close()
        return None


# Where workers can be forked.
Forks: TypeAlias = ForkServers | ParentForks
# Set in a forked process whose parent forks for it.
_parent: ContextVar[ParentForks | None] = ContextVar("parent", default=None)


def ask_parent(connection: socket.socket) -> None:
    """From now on this process has its parent fork workers."""
    _parent.set(ParentForks(connection))


@contextmanager
def of_process() -> Iterator[Forks]:
    """Where this process has workers forked."""
    if (parent := _parent.get()) is not None:
        yield parent
        return
    servers = ForkServers()
    try:
        yield servers
    finally:
        servers.close()


def _start_server(start: Start) -> tuple[subprocess.Popen[bytes], socket.socket]:
    requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    requests.setblocking(False)  # while it imports, it reads nothing
    with theirs:
        try:
            process = subprocess.Popen(
                [start.python, START, start.kind, str(theirs.fileno())],
                cwd=_NO_PROJECT,
                env=dict(start.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError:
            requests.close()
            raise
    return process, requests
