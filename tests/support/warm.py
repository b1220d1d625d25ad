"""Workers of Dagster projects, forked from interpreters that have imported Dagster.

The import takes a second, which is most of what a small project's worker does. As in a refresh of
several projects (`bundler.worker.fork_server`), but the interpreters last as long as the tests, and
each worker gets its own environment after the fork. What depends on Python's own variables is
started by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from bundler.refresh import forking
from bundler.refresh.forking import START, ForkedWorker, ForkServers, Start
from tests.support import sample
from tests.support.environments import ROOT
from tests.support.forked import AT_START
from tests.support.warmprograms import prepare

# What is the same for most of the tests.
_COMMON = {*os.environ.items(), ("LC_ALL", "C.UTF-8"), ("PYTHONDONTWRITEBYTECODE", "1")}
# Those that this process has started.
_SERVERS: list[subprocess.Popen[bytes]] = []


class WarmForks(ForkServers):
    """Interpreters that any process of the tests may fork from. folder: their sockets."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def expect(self, starts: Sequence[Start]) -> None:
        """They are there for a single worker, too."""

    def fork(
        self, start: Start, folder: Path, descriptors: tuple[int, int, int]
    ) -> ForkedWorker | None:
        environment = dict(start.environment)
        own = [name for name, _ in environment.items() - _COMMON if name.startswith(AT_START)]
        python, paths = sample.base_of(start.python) or (start.python, [])
        is_warm = str(ROOT / "build" / "environments") in python
        if own or not is_warm or not start.is_shareable or start.kind != "dagster":
            return None
        asked = {"environment": environment, "python": start.python, "paths": paths}
        request = b"\0".join([os.fsencode(folder), json.dumps(asked).encode()])
        ours, theirs = socket.socketpair()
        with theirs, self._connected(python) as server:
            socket.send_fds(server, [request], [*descriptors, theirs.fileno()])
        return ForkedWorker(ours)

    def program(self, python: str, name: str) -> Path:
        """See `program`."""
        with self._connected(python) as server:
            return Path(f"{server.getpeername()}.{name}") / name

    def _connected(self, python: str) -> socket.socket:
        path = self._folder / hashlib.sha256(python.encode()).hexdigest()[:8]
        with FileLock(f"{path}.lock"):
            if not path.exists():
                self._serve(python, path)
        line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        line.connect(os.fspath(path))
        return line

    def _serve(self, python: str, path: Path) -> None:
        owner = self._folder.name.rpartition("-")[2]
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as requests,
            prepare(f"{path}.python", "python", python) as scripts,
            prepare(f"{path}.dbt", "dbt", python) as dbt,
        ):
            requests.bind(os.fspath(path))
            given = [each.fileno() for each in (requests, scripts, dbt)]
            server = subprocess.Popen(
                [python, "-B", Path(__file__).with_name("warmserver.py"), START, str(given[0]),
                 owner, *map(str, given[1:]), f"{path}.dbt"],
                cwd="/dev",
                env={"PATH": os.environ["PATH"], "HOME": os.devnull, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=given,
                start_new_session=True,
            )  # fmt: skip
        _SERVERS.append(server)

    def close(self) -> None:
        """They are kept for the next command."""


@contextmanager
def warm_folder() -> Iterator[Path]:
    """The sockets of the interpreters that end with this block, or with this process."""
    with tempfile.TemporaryDirectory(prefix="warm-", suffix=f"-{os.getpid()}") as name:
        yield Path(name)
        for path in Path(name).iterdir():
            if not path.suffix:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                    line.connect(os.fspath(path))
                    line.send(b"")
    for server in _SERVERS:
        server.wait()


def use(folder: Path) -> None:
    """From now on, this process has workers forked there."""
    forking._parent.set(WarmForks(folder))  # type: ignore[arg-type]


def program(python: Path, name: str = "python") -> Path:
    """What runs as one of an environment of `python_of`, see `warmprograms`: python or dbt."""
    forks: object = forking._parent.get()
    if isinstance(forks, WarmForks):
        return forks.program(str(python), name)
    return python.with_name(name)


@contextmanager
def off() -> Iterator[None]:
    """This process starts workers as if there were no such interpreters."""
    token = forking._parent.set(None)
    yield
    forking._parent.reset(token)
