"""The worker: runs in the *project's* interpreter, finds its components and writes their states.

Only the standard library here: nothing of ours is installed in that interpreter. It is started as
``python start.py KIND COMMANDS EVENTS`` with two descriptors that carry JSON lines, because
components print. KIND names the file next to this one that knows how to find components (``load``)
and how to have one write its state (``write``). With ``python start.py KIND REQUESTS`` the workers
of several projects are forked, see ``fork_server.py``.

Commands: ``load`` (find the components, once; without a root, look for the project here), ``write``
(write one state), ``end`` (send a signal to a write). Events: ``found``, ``load-failed``,
``started`` and ``ended`` (with a wait status, once everything that it had started has ended).

Each ``write`` runs in a forked child that leads its own session, so that it can be killed
with its descendants. Where forking is not safe (another thread runs, or the platform is macOS) the
child is a fresh process, ``python start.py KIND``, which gets the ``load`` and the ``write`` on
its stdin and loads once more.

What happens inside a write goes to a *report*, JSON lines in its own file: every exchange on
the wire as it begins and ends, then ``returned``, or ``raised`` with the chain of exceptions.
The report is there even if the child is killed.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress

# `typing`, `inspect` and `pathlib` take as long as everything else here: only the names of types
# need the first, and a command none of them.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType, ModuleType
    from typing import Any

_HERE = os.path.dirname(__file__)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MOST_ROUNDS = 20
_ROUND_SECONDS = 0.05
# Requests that succeed without the real credentials, or only to get them.
_LOGIN = re.compile(r"(?i)token|oauth|login|signin|sign_in|authoriz|well-known|metadata|169\.254\.")
_ANSWERS = 3
# Searching for reference cycles as often as usual takes a tenth of the time in which Dagster is
# imported and a project loaded, and frees next to nothing. Not at all, and a project whose load
# makes many could take all memory.
_LOOK_FOR_CYCLES_AFTER = 100_000  # objects more
# Opened once: opening it in each child would take as long as the fork itself.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _sibling(name: str, file: str) -> ModuleType:
    """Loads a module by its file: the folder of this one must not shadow the project's packages."""
    path = os.path.join(_HERE, file)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _installed_recorder() -> Any:
    """The recorder of an attempt's exchanges; it watches every client library."""
    # Components may be asynchronous: imported once, and not in each child.
    import asyncio  # noqa: F401

    bodies = _sibling("_state_bundler_bodies", "bodies.py")
    error_objects = _sibling("_state_bundler_error_objects", "error_objects.py")
    recorder = _sibling("_state_bundler_recorder", "recorder.py").Recorder(bodies, error_objects)
    patches = _sibling("_state_bundler_patches", "patches.py").PATCHES
    processes = _sibling("_state_bundler_processes", "processes.py").PATCHES
    wrapping = _sibling("_state_bundler_wrapping", "wrapping.py")
    wrapping.install(patches + processes, recorder)
    return recorder


class Lines:
    """Writes JSON lines to a descriptor; one write per line, so that writers do not mix."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def __call__(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


class Worker:
    """Reads commands until there are no more."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._usual_threshold = gc.get_threshold()
        gc.set_threshold(_LOOK_FOR_CYCLES_AFTER)
        # Requests of another program cannot be seen from here.
        self._recorder = None if kind == "command" else _installed_recorder()
        if kind != "command":
            self._copying = _sibling("_state_bundler_copying", "copying.py")
            self._state_use = _sibling("_state_bundler_state_use", "state_use.py")
        self._endings = _sibling("_state_bundler_endings", "endings.py")
        self._source = _sibling("_state_bundler_source", f"{kind}_worker.py")
        self._watching = _sibling("_state_bundler_watching", "watching.py")
        self._components: dict[str, Any] = {}
        self._loaded_by: dict[str, Any] = {}
        self._forks = False
        self._running: dict[int, dict[str, Any]] = {}  # pid -> the write
        self._helpers: set[int] = set()  # what the project started during the load

    def serve(self, commands: int, events: int) -> None:
        """Obeys the commands, and reports on the other descriptor."""
        self._commands = commands
        self._events = events
        self._say = Lines(events)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
        signal.signal(signal.SIGTERM, _leave)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it only has to wake the loop
        signal.set_wakeup_fd(wake_write)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        import select

        buffer = b""
        while True:
            ready, _, _ = select.select([self._commands, wake_read], [], [])
            if wake_read in ready:
                os.read(wake_read, 4096)
                self._reap()
            if self._commands in ready:
                data = os.read(self._commands, 65536)
                if not data:
                    break
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
        _kill_all(self._running)

    def _obey(self, command: dict[str, Any]) -> None:
        if command["do"] == "load":
            self._load(command)
        elif command["do"] == "end":
            self._end(command["id"], command["signal"])
        elif self._forks:
            self._write_forked(command)
        else:
            self._write_afresh(command)

    def _load(self, command: dict[str, Any]) -> None:
        try:
            inputs = None
            if "observed" in command:
                module = _sibling("_state_bundler_inputs", "inputs.py")
                inputs = module.Inputs(command["observed"], module.packages_of(command))
            self._loaded_by = {**command, "root": command["root"] or _project_here(command)}
            found, self._components = self._source.load(self._loaded_by)
            if self._recorder is not None:
                for told in found["components"]:
                    _check_key(told)
                    told["unread"] = self._state_use.unread(self._components[told["key"]])
            if inputs is not None:
                found["inputs"] = inputs.report()
        except BaseException as error:  # noqa: BLE001  # whatever the project's code raises is reported
            self._say("load-failed", chain=self._watching.describe(error))
            return
        self._helpers = set(_children())
        # Children would copy the pages that a garbage collection touches. None before it either: it
        # takes a twentieth of Dagster's own start, and leaves gaps that children would write into.
        gc.freeze()
        self._forks = _can_fork()
        self._say("found", root=self._loaded_by["root"], **found)

    def _write_forked(self, command: dict[str, Any]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                os.setsid()
                _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                os.close(self._commands)
                os.close(self._events)
                self._attempt(command)
            finally:
                os._exit(70)
        self._running[pid] = command
        self._say("started", id=command["id"], pid=pid)

    def _write_afresh(self, command: dict[str, Any]) -> None:
        import subprocess

        process = subprocess.Popen(
            [sys.executable, os.path.join(_HERE, "start.py"), self._kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        process.returncode = 0  # it is reaped with all others
        self._running[process.pid] = command
        self._say("started", id=command["id"], pid=process.pid)
        if process.stdin is not None:
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps([self._loaded_by, command]).encode())

    def write_alone(self, load: dict[str, Any], command: dict[str, Any]) -> None:
        """The main function of a fresh process that writes one state."""
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        self._attempt(command, load)

    def _end(self, number: int, by: int) -> None:
        for pid, running in self._running.items():
            if running["id"] == number:
                with suppress(OSError):
                    os.killpg(pid, by)

    def _attempt(self, command: dict[str, Any], load: dict[str, Any] | None = None) -> None:
        """Calls the component and ends this process; never returns."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans stay below us, where the parent finds them
        for name in ("state_path", "report"):  # in a container there is nothing yet
            os.makedirs(os.path.dirname(command[name]), exist_ok=True)
        _redirect(command["log"])
        report = _report_of(command)
        code = 1
        try:
            if load is not None:
                _, self._components = self._source.load(load)
            else:
                self._endings.forget_inherited()
            if self._recorder is not None:
                tell = _until_answered(report) if command["rehearsal"] else report
                self._recorder.record(tell, self._watching.describe, command["report"])
                self._watching.tell_environment(command["root"], report)
                self._copying.filter_copies(
                    os.path.dirname(command["state_path"]),
                    command["leave_out"],
                    command["keep"],
                    report,
                )
            gc.set_threshold(*self._usual_threshold)
            unnoticed = self._endings.Unnoticed(self._watching.causes)
            self._write(command)
            self._endings.end_as_python_does(unnoticed)
        except BaseException as error:  # noqa: BLE001  # SystemExit too: a component must not end us
            report("raised", chain=self._watching.describe(error))
            self._watching.print_traceback(error)
        else:
            report("returned")
            code = 0
        finally:
            _flush()
            os._exit(code)

    def _write(self, command: dict[str, Any]) -> None:
        paths = [command["state_path"], command["previous_path"]]
        component = self._components[command["key"]]
        result = self._source.write(component, *filter(None, paths))
        if result is None:
            return
        import inspect

        if inspect.isawaitable(result):
            import asyncio

            asyncio.run(_wait_for(result))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._running:
                command = self._running.pop(pid)
                self._end_what_is_left(pid, {} if status else {pid: command})
                self._say("ended", id=command["id"], status=status)

    def _end_what_is_left(self, pid: int, written: dict[int, dict[str, Any]]) -> None:
        """A state is complete once nothing can write to it any more. written: if it succeeded."""
        for _ in range(_MOST_ROUNDS):  # killed processes may leave orphans
            orphans = self._orphans()
            # Another attempt may have ended meanwhile.
            for leader, each in {**written, **self._running}.items() if orphans else ():
                self._refuse_unfinished(leader, each, orphans)
            _kill_group(pid)
            if not orphans:
                return
            for orphan in orphans:
                _kill(orphan)

    def _refuse_unfinished(self, leader: int, command: dict[str, Any], orphans: set[int]) -> None:
        directory = os.path.dirname(command["state_path"])
        for _ in range(_MOST_ROUNDS):
            if path := self._endings.still_written(orphans, directory):
                _report_of(command)("unfinished", told=f"was still writing {path}")
                return
            program = self._endings.at_work(orphans, directory, leader)
            if not program:
                return
            time.sleep(_ROUND_SECONDS)  # what only writes the log of a script is about to end
        _report_of(command)("unfinished", told=f"had not finished: {program}")

    def _orphans(self) -> set[int]:
        """What attempts that have ended have left running."""
        return set(_children()) - self._running.keys() - self._helpers


def _report_of(command: dict[str, Any]) -> Lines:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return Lines(os.open(command["report"], flags, 0o600))


def record_spawned(report: str) -> None:
    """The first call in a process that a component has `multiprocessing` spawn."""
    recorder = _installed_recorder()
    watching = _sibling("_state_bundler_watching", "watching.py")
    recorder.record(_report_of({"report": report}), watching.describe, report)


class WrongKeyError(Exception):
    """A component has a key that no state can have."""


def _check_key(told: dict[str, Any]) -> None:
    """A key becomes part of a manifest, which is UTF-8."""
    key = told["key"]
    if not isinstance(key, str) or key.encode(errors="ignore").decode() != key:
        raise WrongKeyError(f"{told['kind']} has the key {key!a}, not text")


def _until_answered(report: Lines) -> Any:
    """Reports, and ends this process once the external system has shown that it answers.

    That is one answered read, beyond those that only fetch a token, or several other requests.
    """
    telling: set[int] = set()
    answered = 0

    def tell(event: str, **fields: Any) -> None:
        nonlocal answered
        report(event, **fields)
        if event == "request" and fields["method"] == "GET" and not _LOGIN.search(fields["url"]):
            telling.add(fields["id"])
        if event == "response" and fields["status"] < 300:  # noqa: PLR2004
            answered += 1
            if fields["id"] in telling or answered >= _ANSWERS:
                os._exit(0)

    return tell


class NoProjectError(Exception):
    """There is no project in this folder."""


def _project_here(command: dict[str, Any]) -> str:
    """The project's root, as far as this machine's files tell: here, or above its package."""
    from pathlib import Path

    here = Path.cwd()
    module = command.get("root_module", "").partition(".")[0]
    if not module:
        return str(here)
    spec = importlib.util.find_spec(module)
    origin = Path(spec.origin) if spec is not None and spec.origin else here
    for folder in (here, *origin.parents):
        if (folder / "pyproject.toml").is_file() or (folder / "dg.toml").is_file():
            return str(folder)
    raise NoProjectError(f"no pyproject.toml or dg.toml in {here}, nor above the package {module}")


def _kill_group(leader: int) -> None:
    with suppress(OSError):
        os.killpg(leader, signal.SIGKILL)


def _kill(child: int) -> None:
    _kill_group(child)
    with suppress(OSError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _leave(number: int, _frame: FrameType | None) -> None:
    _kill_all(())
    os._exit(128 + number)


def _kill_all(pids: Iterable[int]) -> None:
    """The parent has ended or does not need us any more: nothing of ours must continue.

    pids: of our children; what they have started becomes our child when they end.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for _ in range(_MOST_ROUNDS):
        for pid in list(pids):
            _kill(pid)
        pids = _children()


def _children() -> list[int]:
    """Our children, which all orphans below us become. None if the kernel does not support that."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            return [int(pid) for pid in children.read().split()]
    except OSError:
        return []


async def _wait_for(awaitable: Any) -> None:
    await awaitable


def _can_fork() -> bool:
    """Only on Linux, and only while this process has one thread, Python's or a library's."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return False
    return len(os.listdir("/proc/self/task")) == 1


def _prctl(option: int, value: int) -> None:
    if _LIBC is not None:
        _LIBC.prctl(option, value, 0, 0, 0)


def _redirect(log: str) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


def main(arguments: list[str]) -> None:
    """The main function of a worker; see the top for the arguments."""
    kind, *descriptors = arguments
    worker = Worker(kind)
    if not descriptors:
        worker.write_alone(*json.load(sys.stdin))
    elif len(descriptors) == 1:
        worker.serve(*_forked(kind, int(descriptors[0])))
    else:
        worker.serve(*map(int, descriptors))


def _forked(kind: str, requests: int) -> tuple[int, int]:
    """Forks workers; returns in each of them."""
    module = _sibling("_state_bundler_fork_server", "fork_server.py")
    server = module.ForkServer(requests, [sys.executable, sys.argv[0], kind], _kill_all)
    server.import_shared("dagster" if kind == "dagster" else "")
    commands, events = server.next_worker()
    del sys.modules[module.__name__]
    return commands, events
