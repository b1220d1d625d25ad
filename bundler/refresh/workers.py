"""Supervises the worker processes: starts them, sends commands, ends them with their children.

These processes are not started through `system.process`: they persist, take commands, report on
their own descriptor, and a deadline ends one write among many, with everything that it has started.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from bundler.errors import ToolFailed
from bundler.refresh.forking import START, ForkedWorker, Forks, Start

# The time between SIGTERM and SIGKILL: a process only writes to staging, nothing is lost.
_GRACE_SECONDS = 0.3
_POLL_SECONDS = 0.01
_READ_BYTES = 65536


class Write(msgspec.Struct, frozen=True):
    """One attempt.

    state_path: what the component writes to. report, log: files that it fills. previous_path: a
    copy of the last good state; None if it was not requested. root: the project's; the variables
    that its own code reads are reported. rehearsal: whether it ends as soon as the wire has shown
    that the external system answers; the output is then no state. leave_out, keep: patterns of
    paths below the key directory, for what is copied into it.
    """

    key: str
    root: Path
    state_path: Path
    report: Path
    log: Path
    rehearsal: bool = False
    leave_out: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    previous_path: Path | None = None


Launch = Callable[[int, int], "subprocess.Popen[bytes] | ForkedWorker"]


def launch(start: Start, *, cwd: Path, output: Path, forks: Forks | None) -> Launch:
    """How to start a worker on this machine.

    output: a file for what the project prints while it loads. forks: where it is forked instead, if
    that is possible.
    """
    # A worker that only starts another program needs no installed package, and starts faster
    # without.
    flags = ["-S"] if start.kind == "command" else []

    def started(commands: int, events: int) -> subprocess.Popen[bytes] | ForkedWorker:
        with open(output, "ab") as stream:
            descriptors = (commands, events, stream.fileno())
            forked = forks.fork(start, cwd, descriptors) if forks is not None else None
            return forked or subprocess.Popen(
                [start.python, *flags, START, start.kind, str(commands), str(events)],
                cwd=cwd,
                env=dict(start.environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                pass_fds=(commands, events),
                start_new_session=True,
            )

    return started


class WorkerProcess:
    """A worker process in a project's interpreter."""

    def __init__(self, launch: Launch, name: str) -> None:
        """name: of what is started, for messages. Raises `ToolFailed`."""
        self._numbers = itertools.count(1)
        self._replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._pids: dict[int, int] = {}
        self._buffer = b""
        self._name = name
        commands, self._commands = os.pipe()
        self._events, events = os.pipe()
        try:
            self._process = launch(commands, events)
        except OSError as error:
            os.close(self._commands)
            os.close(self._events)
            raise ToolFailed(
                f"{name} cannot be started: {error.strerror}.",
                hint="Pass the project's interpreter with --python.",
            ) from error
        finally:
            os.close(commands)
            os.close(events)
        os.set_blocking(self._events, False)
        asyncio.get_running_loop().add_reader(self._events, self._read)

    def written_at(self, write: Write) -> str:
        """The key directory of an attempt as the component sees it."""
        return str(write.state_path.parent)

    async def load(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Loads the project. Returns the event ``found`` or ``load-failed``.

        Raises `ToolFailed` if the worker ends without an answer.
        """
        self._tell({"do": "load", **command})
        return await self._reply()

    async def _reply(self) -> dict[str, Any]:
        reply = await self._replies.get()
        if reply["event"] == "gone":
            raise ToolFailed(
                f"{self._name} exited while it loaded the project.",
                hint="Import its modules by hand: an import may have ended the process.",
            )
        return reply

    async def write(self, write: Write) -> int:
        """Makes one attempt and returns the wait status of its process.

        When this is cancelled, the attempt's process and everything that it has started are ended
        first.
        """
        number = next(self._numbers)
        ended = self._ended[number] = asyncio.get_running_loop().create_future()
        self._tell(
            {
                "do": "write",
                "id": number,
                "key": write.key,
                "root": f"{write.root}/",
                "state_path": str(write.state_path),
                "report": str(write.report),
                "log": str(write.log),
                "rehearsal": write.rehearsal,
                "leave_out": write.leave_out,
                "keep": write.keep,
                "previous_path": str(write.previous_path or ""),
            }
        )
        try:
            return int(await ended)
        finally:
            await self._end(number)

    async def close(self) -> None:
        """Ends the worker and everything that it still runs."""
        self._hang_up()
        if pid := self._process.pid:
            await end_tree(pid, grace=0)
        asyncio.get_running_loop().remove_reader(self._events)
        with suppress(OSError):
            os.close(self._events)
        self._process.wait()

    def _hang_up(self) -> None:
        """Without commands the worker ends by itself."""
        if self._commands >= 0:
            os.close(self._commands)
            self._commands = -1

    async def _end(self, number: int) -> None:
        """Ends an attempt's process, unless the worker has reported its end and cleaned up."""
        pid = self._pids.pop(number, None)
        if pid is not None:
            await end_tree(pid)
        self._ended.pop(number, None)

    def _tell(self, command: Mapping[str, Any]) -> None:
        self._send(json.dumps(command).encode() + b"\n")

    def _send(self, data: bytes) -> None:
        with suppress(BrokenPipeError):  # its end is reported as an event
            while data:
                data = data[os.write(self._commands, data) :]

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._events, _READ_BYTES):
                *lines, self._buffer = (self._buffer + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
            self._gone()

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "started":
            self._pids[event["id"]] = event["pid"]
        elif event["event"] == "ended":
            self._pids.pop(event["id"], None)
            self._settle(event["id"], event["status"])
        else:
            self._replies.put_nowait(event)

    def _gone(self) -> None:
        """The worker has closed its events: it ends."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._events)
        self._replies.put_nowait({"event": "gone"})
        self._poll(loop)

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        status = self._process.poll()
        if status is None:
            loop.call_later(_POLL_SECONDS, self._poll, loop)
            return
        for number in list(self._ended):
            self._settle(number, -status if status < 0 else status << 8)

    def _settle(self, number: int, status: int) -> None:
        ended = self._ended.get(number)
        if ended is not None and not ended.done():
            ended.set_result(status)


async def end_tree(pid: int, *, grace: float | None = None) -> None:
    """Ends a process that leads a session, and everything that it has started.

    SIGTERM first, unless there is no grace; then SIGKILL until nothing is left. A descendant that
    started its own session is found as long as one of its ancestors exists.
    """
    grace = _GRACE_SECONDS if grace is None else grace
    known = _below([pid])
    if grace:
        _signal_group(pid, signal.SIGTERM)
        await _gone_within(pid, grace)
    for _ in range(10):
        known.update(_below(known))
        _signal_group(pid, signal.SIGKILL)
        alive = [member for member, started in known.items() if _started(member) == started]
        for member in alive:
            with suppress(OSError):
                os.kill(member, signal.SIGKILL)
        if not alive:
            return
        await asyncio.sleep(_POLL_SECONDS)


def _signal_group(pid: int, number: int) -> None:
    with suppress(OSError):
        os.killpg(pid, number)


async def _gone_within(pid: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(pid, 0)
        except OSError:
            return
        await asyncio.sleep(_POLL_SECONDS)


def _below(pids: Iterable[int]) -> dict[int, str]:
    """These processes and their descendants: pid and start time. Linux only.

    Asks for each one's children, which takes a hundredth of the time of inspecting every process.
    """
    if sys.platform != "linux":
        return {}
    found: dict[int, str] = {}
    pending = list(pids)
    while pending:
        pid = pending.pop()
        started = None if pid in found else _started(pid)
        if started is not None:
            found[pid] = started
            pending += _children(pid)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
            children += map(int, text.split())
    return children


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields


def _started(pid: int) -> str | None:
    stat = _stat(pid)
    return stat[19] if stat else None
