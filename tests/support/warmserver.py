"""An interpreter with Dagster to fork workers from, which serves ``python`` and ``dbt``, too.

``warmserver.py START REQUESTS OWNER PYTHON DBT FOLDER``: START is the file that starts a worker.
REQUESTS, PYTHON and DBT: sockets' descriptors. OWNER: this ends with that process. FOLDER: of the
program that stands for dbt, see `warmprograms`. A request is that of
`bundler.worker.fork_server`, with JSON after the folder: the worker's environment, and its
interpreter if that is one of a sample's, which imports from further paths before this one's
packages.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_SECONDS_BETWEEN_LOOKS = 5.0


def main() -> None:
    _, start, requests, owner, python, dbt, folder = sys.argv
    del sys.path[0]
    has_dbt = importlib.util.find_spec("dagster_dbt") is not None
    programs = _load("warmprograms", Path(__file__).with_name("warmprograms.py"))
    for descriptor, load in ((python, programs.python), (dbt, programs.dbt)):
        programs.start(socket.socket(fileno=int(descriptor)), load)
    sys.argv = [start, "dagster", requests]
    worker = _load("_state_bundler_worker", Path(start).with_name("worker.py"))
    program = worker.Worker("dagster")
    server = _server_of(worker, folder if has_dbt else "")(
        int(requests), [sys.executable, start, "dagster"], worker._kill_all
    )
    signal.signal(signal.SIGALRM, lambda *_: os.path.exists(f"/proc/{owner}") or server._end())
    signal.setitimer(signal.ITIMER_REAL, _SECONDS_BETWEEN_LOOKS, _SECONDS_BETWEEN_LOOKS)
    server.import_shared("dagster_dbt" if has_dbt else "dagster")
    program.serve(*server.next_worker())


def _server_of(worker: ModuleType, programs: str) -> Any:
    module = worker._sibling("_state_bundler_fork_server", "fork_server.py")

    class WarmServer(module.ForkServer):  # type: ignore[misc, name-defined]
        """Gives each worker its own environment."""

        def _become_worker(self, packet: bytes, *descriptors: int) -> tuple[int, int]:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            folder, _, rest = packet.partition(b"\0")
            asked = json.loads(rest)
            self._environment = asked["environment"]
            if programs:
                self._environment["PATH"] = f"{programs}:{self._environment['PATH']}"
            os.environ.clear()
            os.environ.update(self._environment)
            if asked["paths"]:
                _become_interpreter(asked["python"], asked["paths"])
            commands, events = super()._become_worker(folder, *descriptors)
            del sys.modules[module.__name__]
            return commands, events

    return WarmServer


def _become_interpreter(python: str, paths: list[str]) -> None:
    sys.executable = python
    sys.prefix = sys.exec_prefix = os.path.dirname(os.path.dirname(python))
    sys.path[-1:-1] = paths


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
