"""dbt in forks of an interpreter that has imported it, which is most of what `dbt parse` does.

Only for workers that are forked, too (`warm`): what starts dbt by itself has dbt's own script. The
program that stands for it has the arguments, the environment, the folder and the streams of a new
process, and its exit code; dbt ends with it. Standard library only: `warmserver` runs it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from typing import Any

_PR_SET_PDEATHSIG = 1
_CLIENT = """\
#!{python} -IS
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.connect(os.path.join(os.path.dirname(sys.argv[0]), "socket"))
asked = [sys.argv, dict(os.environ), os.getcwd()]
socket.send_fds(line, [json.dumps(asked).encode()], [0, 1, 2])
os._exit(int(line.recv(8) or b"99"))
"""


def start(folder: str) -> None:
    """Puts a program ``dbt`` into `folder`, which runs as long as this process does."""
    os.mkdir(folder)
    program = os.path.join(folder, "dbt")
    with open(program, "w", opener=lambda path, flags: os.open(path, flags, 0o755)) as script:
        script.write(_CLIENT.format(python=sys.executable))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(os.path.join(folder, "socket"))
    listener.listen()
    if os.fork():
        listener.close()
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork
    cli: Any = None
    while True:
        line, _ = listener.accept()
        if cli is None:
            cli = importlib.import_module("dbt.cli.main").cli
            importlib.import_module("dbt.adapters.duckdb")
            gc.collect()
            gc.freeze()
        if not os.fork():
            listener.close()
            _run(cli, line)
        line.close()


def _run(cli: Any, line: socket.socket) -> None:
    code = 99
    try:
        packet, streams, _, _ = socket.recv_fds(line, 1 << 20, 3)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.argv, environment, folder = json.loads(packet)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        threading.Thread(target=_end_with, args=[line], daemon=True).start()
        code = _code_of(cli)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001  # which nothing else would show
        traceback.print_exc()
    finally:
        line.send(b"%d" % code)
        os._exit(code)


def _code_of(cli: Any) -> int:
    try:
        cli()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    return 0


def _end_with(line: socket.socket) -> None:
    """Ends this process as soon as the program that stands for it has been killed."""
    line.recv(1)
    os._exit(1)
