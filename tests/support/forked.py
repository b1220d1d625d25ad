"""Runs our programs in forks of a process that has imported them: a third of what a start takes.

A fork has the arguments, the environment, the folder, the umask and the standard streams that a new
process would have, and its exit code. What only the start of an interpreter shows (its options,
encodings, what is imported, closed streams) is for `subprocess`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeAlias

from tests.support.environments import ROOT

BIN = Path(sys.executable).parent
NAMES = ("state-bundler", "state-guard", "docker-bundle", "pex-bundle")
_PROGRAMS = {os.fspath(BIN / name) for name in NAMES}
# What an interpreter reads when it starts, and GitPython when it is imported.
AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "GIT_PYTHON_")
_NO_MATTER = {"PYTHONUNBUFFERED"}  # set in many images; the output is read at the end
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
# Where the forks have Dagster's workers forked, see `warm`.
warm_folder: Path | None = None
# The exit code of a fork in which the program did not run, which no program of ours has.
DID_NOT_RUN = 99

Word: TypeAlias = "str | bytes | os.PathLike[str]"


def run(
    argv: Sequence[Word],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float = 120,
    settings: Mapping[str, float] | None = None,
    umask: int | None = None,
    as_user: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Like `subprocess.run` with captured output, which runs what is no program of ours.

    settings: constants with another value there, by their full names. umask: None for this
    process's. as_user: the command that runs a command as another user.
    """
    folder, env = cwd or Path.cwd(), os.environ if env is None else env
    if not _can_fork(argv, env):
        assert not settings
        assert not as_user
        return subprocess.run(
            argv, cwd=folder, env=env, input=stdin, capture_output=True, check=False,
            timeout=timeout,
        )  # fmt: skip
    request = {
        "argv": _without_interpreter(argv),
        "environment": dict(env),
        "folder": os.fspath(folder),
        "umask": _umask() if umask is None else umask,
        "settings": settings or {},
        "warm_folder": warm_folder and os.fspath(warm_folder),
    }
    try:
        code, out, err = _server(as_user).run(json.dumps(request).encode(), stdin, timeout)
    except BaseException:
        close()
        raise
    assert code != DID_NOT_RUN, err.decode()
    return subprocess.CompletedProcess(argv, code, out, err)


def said(*words: Word, **options: Any) -> subprocess.CompletedProcess[str]:
    """What one of our programs says; its name is the first of the words."""
    return text(run([BIN / os.fsdecode(words[0]), *words[1:]], **options))


def text(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def _without_interpreter(argv: Sequence[Word]) -> list[str]:
    """``python -m bundler`` is ``state-bundler``."""
    words = [os.fsdecode(word) for word in argv]
    if words[:3] == [sys.executable, "-m", "bundler"]:
        return [os.fspath(BIN / NAMES[0]), *words[3:]]
    return words


def _can_fork(argv: Sequence[Word], env: Mapping[str, str]) -> bool:
    """Whether it is one of our programs, with the git and the interpreter that the server has."""
    path = env.get("PATH")
    if shutil.which(_without_interpreter(argv)[0], path=path) not in _PROGRAMS:
        return False
    if shutil.which("git", path=path) != shutil.which("git"):
        return False
    return _at_start({**_ENVIRONMENT, **env}) == _server().at_start


def _at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if name.startswith(AT_START) and name not in _NO_MATTER
    }


def close() -> None:
    """Ends the servers, if there are any."""
    while _SERVERS:
        _, server = _SERVERS.popitem()
        server.close()


_SERVERS: dict[tuple[str, ...], _Server] = {}


def _server(as_user: tuple[str, ...] = ()) -> _Server:
    if as_user not in _SERVERS:
        _SERVERS[as_user] = _Server(as_user)
    return _SERVERS[as_user]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class _Server:
    def __init__(self, as_user: Sequence[str]) -> None:
        environment = {**os.environ, **_ENVIRONMENT}
        self.at_start = _at_start(environment)
        self._line, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*as_user, sys.executable, "-m", "tests.support.forkserver", str(theirs.fileno())],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def run(self, request: bytes, stdin: bytes, timeout: float) -> tuple[int, bytes, bytes]:
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            size = len(request).to_bytes(4, "big")
            socket.send_fds(self._line, [size], [each.fileno() for each in (given, out, err)])
            self._line.sendall(request)
            code = self._ended(self._number(), timeout)
            out.seek(0)
            err.seek(0)
            return code, out.read(), err.read()

    def _ended(self, child: int, timeout: float) -> int:
        self._line.settimeout(timeout)
        try:
            return self._number()
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            self._line.settimeout(None)

    def _number(self) -> int:
        answer = self._line.recv(4, socket.MSG_WAITALL)
        if len(answer) < 4:
            raise EOFError("the server of forks has ended")
        return int.from_bytes(answer, "big", signed=True)

    def close(self) -> None:
        # A fork of this process may still hold the line: closing alone might not end the server.
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()
        self._process.wait()
