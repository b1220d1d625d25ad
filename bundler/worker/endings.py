"""Lets a component end as it would if its process ended by itself.

The process of an attempt ends immediately (``os._exit``): what Python does before its own end, and
what a component may rely on, is done here. This runs in the project's interpreter, so it only
imports the standard library.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

# `typing` takes longer than everything else here: only the names of types need it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any


# Programs that may stay in the directory in which they were started, without writing a state:
# a connection that is kept for the next command, the maintenance of a repository.
_KEEP_OPEN = ("ssh", "git")


def forget_inherited() -> None:
    """What the worker has started or registered must not end with its fork.

    As `multiprocessing` does in its own forks.
    """
    import atexit
    import weakref

    atexit._clear()  # noqa: SLF001
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # noqa: SLF001
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]  # noqa: SLF001
    if processes := sys.modules.get("multiprocessing.process"):
        processes._children.clear()  # noqa: SLF001
    if util := sys.modules.get("multiprocessing.util"):
        util._finalizer_registry.clear()  # noqa: SLF001
        atexit.register(util._exit_function)  # noqa: SLF001


class Unnoticed:
    """What ends a thread, a task or a future from now on, and what nothing looks at: Python prints
    it, at most, and continues.

    causes: all exceptions behind one, itself included.
    """

    def __init__(self, causes: Callable[[BaseException], Iterable[BaseException]]) -> None:
        self._causes = causes
        self._in_threads: list[BaseException] = []
        self._failed: dict[int, list[Any]] = {}  # tasks and futures, by the id of the exception
        self._watch_threads()
        if "asyncio" in sys.modules:  # otherwise no component runs here
            self._watch_tasks()
            self._watch_futures()

    def errors(self) -> list[BaseException]:
        # A component that has seen one of them fail knows that others may have: it repeats all, or
        # does without.
        failed = [one for of in [*self._failed.values()] for one in of]
        is_seen = not all(it._log_traceback for it in failed)  # noqa: SLF001  # as asyncio
        unseen = [] if is_seen else [it._exception for it in failed]  # noqa: SLF001
        return [*self._in_threads, *unseen]

    def _add(self, failed: Any, error: BaseException) -> None:
        """What one of them has looked at and passes on, for example to a task that waits for it, is
        not another failure."""
        for cause in self._causes(error):
            if of := self._failed.get(id(cause)):
                of[:] = [it for it in of if it._log_traceback and type(it) is type(failed)]  # noqa: SLF001  # see above
        self._failed.setdefault(id(error), []).append(failed)

    def _watch_threads(self) -> None:
        """Without those that only run in the background."""
        import threading

        usual = threading.excepthook

        def note(ended: threading.ExceptHookArgs) -> None:
            background = ended.thread is not None and ended.thread.daemon
            if background or not isinstance(ended.exc_value, Exception):
                usual(ended)
            else:
                self._in_threads.append(ended.exc_value)

        threading.excepthook = note

    def _watch_tasks(self) -> None:
        import asyncio

        def note(task: Any) -> None:
            is_handled = task.get_loop().get_exception_handler() is not None
            error = task._exception  # noqa: SLF001  # `exception()` would be a look
            if isinstance(error, Exception) and not is_handled and not self._is_given_up(task):
                self._add(task, error)

        def noting(usual: Any) -> Any:
            def start(*args: Any, **kwargs: Any) -> Any:
                task = usual(*args, **kwargs)
                if isinstance(task, asyncio.Future):
                    task.add_done_callback(note)
                return task

            return start

        kind: Any = asyncio.BaseEventLoop
        kind.create_task = noting(kind.create_task)
        kind.run_in_executor = noting(kind.run_in_executor)

    def _is_given_up(self, task: Any) -> bool:
        """What was cancelled is not waited for any more. Python 3.10 does not count that, and 3.11
        and 3.12 also count a failed task group's, whose error comes from no cancellation."""
        from asyncio import CancelledError

        is_cancelled = getattr(task, "cancelling", int)()
        behind = self._causes(task._exception) if is_cancelled else ()  # noqa: SLF001  # see above
        return any(isinstance(cause, CancelledError) for cause in behind)

    def _watch_futures(self) -> None:
        from concurrent.futures import Future

        def noting(usual: Any) -> Any:
            def note(future: Any, error: Any) -> None:
                # Not tenacity's own, which are attempts.
                if isinstance(error, Exception) and type(future) is Future:
                    vars(future).setdefault("_log_traceback", True)
                    self._add(future, error)
                usual(future, error)

            return note

        def looking(usual: Any) -> Any:
            def look(future: Any, *args: Any, **kwargs: Any) -> Any:
                try:
                    return usual(future, *args, **kwargs)
                finally:
                    future._log_traceback = False  # noqa: SLF001  # ours, like that of a task

            return look

        kind: Any = Future
        kind.set_exception = noting(kind.set_exception)
        kind.result, kind.exception = looking(kind.result), looking(kind.exception)
        kind.cancel = looking(kind.cancel)  # nothing waits for it any more


def end_as_python_does(unnoticed: Unnoticed) -> None:
    """Waits for threads and executors, calls what is registered, and closes files. Raises the first
    of what nothing has noticed."""
    import atexit
    import threading

    # Nothing public waits for executors as well.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  # see above
    atexit._run_exitfuncs()  # noqa: SLF001  # as `multiprocessing` does in a fork
    _close_files()
    for error in unnoticed.errors():
        sys.stderr.write("Raised in a thread, task or future whose result nothing used:\n")
        raise error


def _close_files() -> None:
    """Closes what is still open for writing: it may hold text that is not on disk."""
    import gc
    import io

    gc.collect()
    found = [one for one in gc.get_objects() if issubclass(type(one), io.IOBase)]
    last = (io.BufferedWriter, io.BufferedRandom, io.RawIOBase)
    # What wraps another file comes first, since it still writes to that: text, then e.g. gzip.
    found.sort(key=lambda one: (not isinstance(one, io.TextIOBase), isinstance(one, last)))
    for file in filter(_is_written, found):
        file.close()


def _is_written(file: Any) -> bool:
    try:
        number = file.fileno()
        is_output = number in (1, 2)  # what failed is still printed there
        is_file = stat.S_ISREG(os.fstat(number).st_mode)
        return is_file and not is_output and bool(file.writable())
    except Exception:  # noqa: BLE001  # closed, or no file of the system, or a class that raises
        return False


def still_written(pids: Iterable[int], directory: str) -> str:
    """A file below a directory that one of these processes, or one that it has started, has open
    for writing; empty if there is none."""
    directory = os.path.realpath(directory)
    for process in _with_descendants(pids):
        with suppress(OSError):  # it has ended
            for number in os.listdir(f"{process}/fd"):
                with suppress(OSError):  # it has closed that
                    opened = f"{process}/fd/{number}"
                    path = os.readlink(opened)
                    if not path.startswith(f"{directory}/") or not os.stat(opened).st_nlink:
                        continue
                    if _writes(f"{process}/fdinfo/{number}"):
                        return path[len(directory) + 1 :]
    return ""


def at_work(pids: Iterable[int], directory: str, leader: int) -> str:
    """The name of such a process that was started with a path below the directory, or there, or
    that is a fork of the leader of its session, a component: a download opens its file when the
    first bytes arrive. Empty if there is none."""
    ours = os.fsencode(sys.argv[0])
    folders = {os.fsencode(path) + b"/" for path in (directory, os.path.realpath(directory))}
    for process in _with_descendants(pids):
        with suppress(OSError):
            with open(f"{process}/cmdline", "rb") as words:
                argv = words.read()  # empty once it has ended
            with open(f"{process}/comm") as name:
                keeps_open = name.read().strip() in _KEEP_OPEN
            where = b"" if keeps_open else os.fsencode(os.readlink(f"{process}/cwd")) + b"/"
            has_path = any(path in argv or where.startswith(path) for path in folders if argv)
            is_fork = ours in argv.split(b"\0") and os.getsid(int(process[6:])) == leader
            if has_path or is_fork:
                return os.path.basename(os.fsdecode(argv.partition(b"\0")[0]))
    return ""


def _with_descendants(pids: Iterable[int]) -> Iterator[str]:
    """Their folders in /proc."""
    pending = list(pids)
    while pending:
        process = f"/proc/{pending.pop()}"
        yield process
        with suppress(OSError):
            for thread in os.listdir(f"{process}/task"):
                with open(f"{process}/task/{thread}/children") as children:
                    pending += map(int, children.read().split())


def _writes(fdinfo: str) -> bool:
    with open(fdinfo) as lines:
        flags = next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
    return flags & os.O_ACCMODE != os.O_RDONLY
