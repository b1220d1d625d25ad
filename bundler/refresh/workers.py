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
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from bundler.errors import ToolFailed
from bundler.refresh.forking import START, ForkedWorker, Forks, Start

# The time between SIGTERM and SIGKILL: a process only writes to staging, nothing is lost.
_GRACE_SECONDS = 0.3
# How long a worker may take to end what was killed, or itself.
END_SECONDS = 2.0
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
    """A worker process in a project's interpreter.

    shares_processes: whether the pids that it reports are those of this machine.
    """

    shares_processes = True

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
        command = msgspec.to_builtins(write, enc_hook=str)
        paths = {"root": f"{write.root}/", "previous_path": str(write.previous_path or "")}
        self._tell({"do": "write", "id": number, **command, **paths})
        try:
            return int(await ended)
        finally:
            await self._end(number)

    async def write_within(self, write: Write, seconds: float) -> int | None:
        """Like `write`, but ends the attempt at a deadline: then None."""
        try:
            return await asyncio.wait_for(self.write(write), seconds)
        except (asyncio.TimeoutError, TimeoutError):
            return None

    async def close(self) -> None:
        """Ends the worker and everything that it still runs."""
        self._hang_up()
        if pid := self._process.pid:
            _signal_group(pid, signal.SIGCONT)
            _signal_group(pid, signal.SIGTERM)  # it ends everything below it, then itself
            for _ in range(int(END_SECONDS / _POLL_SECONDS)):
                if self._process.poll() is not None:
                    break
                await asyncio.sleep(_POLL_SECONDS)
            _signal_group(pid, signal.SIGKILL)
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
        """Ends an attempt's process and everything that it has started, unless that is reported.

        The worker does that, also in a container: an attempt's orphans become its children.
        """
        ended = self._ended[number]
        if ended.cancelled() or not ended.done():
            ended = self._ended[number] = asyncio.get_running_loop().create_future()
            _signal_group(self._process.pid, signal.SIGCONT)  # should an attempt have stopped it
            for sent, seconds in (signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, END_SECONDS):
                if not ended.done():
                    self._tell({"do": "end", "id": number, "signal": sent})
                    await asyncio.wait([ended], timeout=seconds)
        self._ended.pop(number)
        if pid := self._pids.pop(number, None):  # the worker itself has been killed
            _signal_group(pid, signal.SIGKILL)

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
        if event["event"] == "started" and self.shares_processes:
            self._pids[event["id"]] = event["pid"]
        elif event["event"] == "ended":
            self._pids.pop(event["id"], None)
            self._settle(event["id"], event["status"])
        elif event["event"] != "started":
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


def _signal_group(pid: int, number: int) -> None:
    with suppress(OSError):
        os.killpg(pid, number)
