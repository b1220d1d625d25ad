"""Programs in forks of interpreters that have imported what takes most of their time.

``dbt`` is for workers that are forked, too (`warm`): what starts dbt by itself has dbt's own
script. ``python`` runs the tests' own scripts in a Dagster environment: ``python -c`` and
``python -``. The program that stands for one has the arguments, the environment, the folder, the
streams and the networks of a new process, and its exit code; the fork ends with it. Standard
library only: `warmserver` runs it.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_NAMESPACES = ("user", "net")
_CLIENT = """\
#!{python} -IS
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.connect(os.path.join(os.path.dirname(sys.argv[0]), "socket"))
asked = [sys.argv, dict(os.environ), os.getcwd()]
spaces = [os.open("/proc/self/ns/" + name, os.O_RDONLY) for name in {namespaces}]
socket.send_fds(line, [json.dumps(asked).encode()], [0, 1, 2, *spaces])
os._exit(int(line.recv(8) or b"99"))
"""


def prepare(folder: str, name: str, python: str) -> socket.socket:
    """Puts a program into a new folder. Returns where `start` hears what starts it."""
    os.mkdir(folder)
    program = os.path.join(folder, name)
    with open(program, "w", opener=lambda path, flags: os.open(path, flags, 0o755)) as script:
        script.write(_CLIENT.format(python=python, namespaces=_NAMESPACES))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(os.path.join(folder, "socket"))
    listener.listen()
    return listener


def start(listener: socket.socket, load: Callable[[], Callable[[], object]]) -> None:
    """Serves a program as long as this process lives. load: imports it, when it is first used."""
    if os.fork():
        listener.close()
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork
    program = None
    while True:
        line, _ = listener.accept()
        if program is None:
            program = load()
            gc.collect()
            gc.freeze()
        if not os.fork():
            listener.close()
            _run(program, line)
        line.close()


def dbt() -> Callable[[], object]:
    importlib.import_module("dbt.adapters.duckdb")
    cli: Callable[[], object] = importlib.import_module("dbt.cli.main").cli
    return cli


def python() -> Callable[[], object]:
    has_dbt = importlib.util.find_spec("dagster_dbt") is not None
    importlib.import_module("dagster_dbt" if has_dbt else "dagster")
    return _run_script


def _run_script() -> None:
    option, *rest = sys.argv[1:]
    assert option in ("-c", "-"), "for this, start the interpreter"
    source = rest.pop(0) if option == "-c" else sys.stdin.read()
    sys.argv = [option, *rest]
    sys.path[:0] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(source, "<string>", "exec"), main.__dict__)


def _run(program: Callable[[], object], line: socket.socket) -> None:
    code = 99
    try:
        packet, descriptors, _, _ = socket.recv_fds(line, 1 << 20, 3 + len(_NAMESPACES))
        for number, stream in enumerate(descriptors[:3]):
            os.dup2(stream, number)
            os.close(stream)
        for name, space in zip(_NAMESPACES, descriptors[3:], strict=True):
            _enter(name, space)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.argv, environment, folder = json.loads(packet)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        threading.Thread(target=_end_with, args=[line], daemon=True).start()
        code = code_of(program)
    except BaseException:  # noqa: BLE001  # which nothing else would show
        traceback.print_exc()
    finally:
        line.send(b"%d" % code)
        os._exit(code)


def _enter(name: str, space: int) -> None:
    """The namespace of the program that stands for this, where that is another."""
    same = os.path.samestat(os.fstat(space), os.stat(f"/proc/self/ns/{name}"))
    if not same and _LIBC.setns(space, 0):
        raise OSError(f"cannot enter the namespace {name}")
    os.close(space)


def code_of(program: Callable[[], Any]) -> int:
    """Runs a program as the last of its process, with what Python does at the end; returns its exit
    code."""
    code = _code_of(program)
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _code_of(program: Callable[[], Any]) -> int:
    try:
        ended = program()
    except SystemExit as error:
        ended = error.code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except Exception:  # noqa: BLE001  # as the interpreter would show it
        traceback.print_exc()
        return 1
    if isinstance(ended, str):
        print(ended, file=sys.stderr)
        return 1
    return ended if isinstance(ended, int) else 0


def _end_with(line: socket.socket) -> None:
    """Ends this process as soon as the program that stands for it has been killed."""
    line.recv(1)
    os._exit(1)
