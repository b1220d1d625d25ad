"""Forks itself for each command that `forked` asks for: ``python -m tests.support.forkserver FD``.

A request has the child's standard streams with it; the answers are its process id and, when it has
ended, its exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bundler
from bundler import cli
from bundler.cli import state_guard
from bundler.hooks import docker_bundle, pex_bundle
from tests.support import warm
from tests.support.forked import DID_NOT_RUN
from tests.support.warmprograms import code_of

PROGRAMS: dict[str, Callable[[], object]] = {
    "state-bundler": cli.main,
    "state-guard": state_guard.main,
    "docker-bundle": docker_bundle.main,
    "pex-bundle": pex_bundle.main,
}
# What most commands import. The rest is left to the forks that need it.
_PACKAGES = ("cli", "guard", "git", "project", "refresh", "setup", "state", "system", "workflows")
_LIBRARIES = ("docker", "git", "rich.console", "ruamel.yaml", "tomlkit", "urllib3")


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    for name in (*_modules(), *_LIBRARIES):
        importlib.import_module(name)
    os.fsync = os.fstat  # type: ignore[assignment]  # as in the tests' own process
    gc.collect()
    gc.freeze()
    while True:
        size, streams, _, _ = socket.recv_fds(line, 4, 3)
        if not size:
            return
        asked = json.loads(line.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        child = os.fork()
        if not child:
            _run(line, streams, asked)
        for stream in streams:
            os.close(stream)
        line.sendall(child.to_bytes(4, "big"))
        _, status = os.waitpid(child, 0)
        line.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))


def _modules() -> Iterator[str]:
    for package in _PACKAGES:
        place = f"{bundler.__path__[0]}/{package}"
        for module in pkgutil.walk_packages([place], f"bundler.{package}."):
            yield module.name


def _run(line: socket.socket, streams: list[int], asked: dict[str, Any]) -> None:
    """What a new process is given, and what the interpreter does at its end."""
    line.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.umask(asked["umask"])
    code = DID_NOT_RUN
    try:
        os.chdir(asked["folder"])
        for name, value in asked["settings"].items():
            module, _, constant = name.rpartition(".")
            setattr(importlib.import_module(module), constant, value)
        if asked["warm_folder"]:
            warm.use(Path(asked["warm_folder"]))
        sys.argv = asked["argv"]
        sys.modules["__main__"].__package__ = None  # click looks there for the program's name
        code = code_of(PROGRAMS[os.path.basename(sys.argv[0])])
    except BaseException:  # noqa: BLE001  # which nothing else would show
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
