"""Forks workers of several projects from one interpreter that has loaded nothing of any project.

A request is a packet with the folder to work in and four descriptors: the worker's commands, its
events, its output, and a connection to the process that asked. The answer on the connection is the
worker's pid and, after its end, its exit code. Until the connection is closed, no other process
gets that pid. The workers end with this process.

Where forking is not safe, because what was imported has started a thread or Python's start is
customized, each request starts a new interpreter, as if this process did not exist.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_MOST_BYTES = 1 << 16
_DESCRIPTORS = 4
# What may depend on the folder in which an interpreter starts.
_CUSTOM = {"sitecustomize", "usercustomize"}


class ForkServer:
    """Serves requests until the process that sends them closes its end.

    argv: starts a new interpreter for a worker, without the descriptors. kill: kills children and
    everything that they have started.
    """

    def __init__(
        self, requests: int, argv: Sequence[str], kill: Callable[[Iterable[int]], None]
    ) -> None:
        self._requests = socket.socket(fileno=requests)
        self._argv = argv
        self._kill = kill
        self._environment = dict(os.environ)
        self._pid = os.getpid()
        self._forks = False
        self._connections: dict[int, socket.socket] = {}  # by the worker's pid
        self._running: set[int] = set()

    def import_shared(self, name: str) -> None:
        """Imports what every worker imports first, if it is installed.

        What raises here raises again in the new interpreter, which reports it.
        """
        # What a `.pth` file has put in the path may depend on this folder, which has no modules.
        here = f"{os.getcwd()}/"
        if any(f"{entry}/".startswith(here) for entry in sys.path):
            return
        if not _CUSTOM.isdisjoint(sys.modules):
            return
        try:
            if name:
                importlib.import_module(name)
            self._forks = len(os.listdir("/proc/self/task")) == 1
        except BaseException:  # noqa: BLE001  # whatever a library raises
            self._forks = False
        gc.freeze()  # a garbage collection would copy the pages that the workers share

    def next_worker(self) -> tuple[int, int]:
        """Returns in each forked worker: the descriptors of its commands and events.

        Does not return in the server.
        """
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker)
        while True:
            by_descriptor = {each.fileno(): pid for pid, each in self._connections.items()}
            requests = self._requests.fileno()
            poll = select.poll()
            for descriptor in (requests, wake, *by_descriptor):
                poll.register(descriptor, select.POLLIN)
            readable = {descriptor for descriptor, _ in poll.poll()}
            if wake in readable:
                os.read(wake, _MOST_BYTES)
                self._report_ended()
            for descriptor in by_descriptor.keys() & readable:
                self._forget(by_descriptor[descriptor])
            if requests in readable:
                packet, descriptors, _, _ = socket.recv_fds(
                    self._requests, _MOST_BYTES, _DESCRIPTORS
                )
                if not packet:
                    self._end()
                if self._fork(descriptors):
                    os.close(wake)
                    os.close(waker)
                    return self._become_worker(packet, *descriptors)

    def _fork(self, descriptors: Sequence[int]) -> bool:
        """Whether this is the new worker.

        If there cannot be one, the process that asked sees that the connection is closed.
        """
        try:
            pid = os.fork() if len(descriptors) == _DESCRIPTORS else None
        except OSError:
            pid = None
        if pid != 0:
            for descriptor in descriptors if pid is None else descriptors[:-1]:
                os.close(descriptor)
        if pid is None:
            return False
        self._connections[pid] = socket.socket(fileno=descriptors[-1])
        if pid == 0:
            return True
        self._running.add(pid)
        if not self._tell(pid, pid):  # it must not load a project for nobody
            os.kill(pid, signal.SIGKILL)
        return False

    def _tell(self, pid: int, number: int) -> bool:
        """Answers on a worker's connection. Returns whether somebody can still read that."""
        try:
            self._connections[pid].sendall(b"%d\n" % number)
        except OSError:
            return False
        return True

    def _report_ended(self) -> None:
        for pid in self._running.copy():
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            self._running.remove(pid)
            exited = ended.si_code == os.CLD_EXITED
            if pid in self._connections:
                self._tell(pid, ended.si_status if exited else -ended.si_status)
            else:
                os.waitpid(pid, 0)

    def _forget(self, pid: int) -> None:
        """The process that asked has closed the connection; the worker ends by itself."""
        self._connections.pop(pid).close()
        if pid not in self._running:
            os.waitpid(pid, 0)

    def _end(self) -> NoReturn:
        """Ends the workers, and this process."""
        self._kill(self._running)
        os._exit(0)

    def _become_worker(
        self, folder: bytes, commands: int, events: int, output: int, _connection: int
    ) -> tuple[int, int]:
        """Makes this process what a new interpreter would be."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._pid:  # it ended before that
            os._exit(0)
        self._requests.close()
        for connection in self._connections.values():
            connection.close()
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.close(output)
        os.chdir(folder)
        for descriptor in (commands, events):
            os.set_inheritable(descriptor, True)
        if not self._forks:
            argv = [*self._argv, str(commands), str(events)]
            os.execve(argv[0], argv, self._environment)  # noqa: S606  # no shell
        importlib.invalidate_caches()
        sys.argv[2:] = [str(commands), str(events)]
        # What Python's own modules remember of the folder in which they were imported.
        if (process := sys.modules.get("multiprocessing.process")) is not None:
            process.ORIGINAL_DIR = os.getcwd()  # type: ignore[attr-defined]
        return commands, events
