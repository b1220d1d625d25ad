"""Writers to a store that can be killed. Run as a program, which imports everything once.

Reads a line for each: its environment's variables, what to do, the store's URL, the folder that the
states lie in. Forks a process for it and prints its id; at the line "go" lets all of them go, and
prints how they ended.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen

import msgspec

from bundler.state.manifest import state_of
from bundler.state.tree import scan
from bundler.store import open_store, prune, remote
from bundler.store.pushing import NewState
from tests.support.environments import ROOT


def states_in(root: Path) -> list[NewState]:
    """The key directories in a folder, as states to push."""
    return [NewState(state_of(path.name, path.name, scan(path)), path) for path in root.iterdir()]


def write(environment: Mapping[str, str], work: str, url: str, root: str) -> None:
    os.environ.update(environment)
    remote._CHUNK_BYTES = 5 * 1024 * 1024  # the least that S3 takes for a part
    store = open_store(url)
    if work == "fifty":
        _write_at_once(url, states_in(Path(root)))
    elif work == "rollback":
        store.rollback()
    elif work == "prune":
        prune.prune(store, prune.PruneRules(keep=1))
    else:
        store.push(states_in(Path(root)))


def _write_at_once(url: str, news: Sequence[NewState]) -> None:
    """Each state is pushed by its own writer, with one under a key that all have."""

    def push(new: NewState) -> None:
        shared = replace(new, state=msgspec.structs.replace(new.state, key="shared", path="shared"))
        open_store(url).push([new, shared])

    with ThreadPoolExecutor(len(news)) as pool:
        list(pool.map(push, news))


class Writers:
    """The program, from the side of a test."""

    def __init__(self) -> None:
        self._process = Popen(
            [sys.executable, "-m", "tests.support.storewriter"],
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
            text=True,
        )

    def begin(self, environment: Mapping[str, str], work: str, url: str, root: Path) -> int:
        """The id of a process that waits to be let go."""
        return int(self._say(json.dumps([dict(environment), work, url, str(root)])))

    def let_go(self) -> list[int]:
        """How the processes ended: their exit codes, or the negative numbers of signals."""
        return [os.waitstatus_to_exitcode(int(status)) for status in self._say("go").split()]

    def _say(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return self._process.stdout.readline()

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@contextmanager
def running() -> Iterator[Writers]:
    running = Writers()
    try:
        yield running
    finally:
        running.end()


def _child(gate: int, line: str) -> None:
    code = 1
    try:
        if os.read(gate, 1):  # nothing comes where the test has died
            write(*json.loads(line))
        code = 0
    except BaseException:  # noqa: BLE001  # the fork must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    waiting: list[tuple[int, int]] = []
    while line := sys.stdin.readline():
        if line == "go\n":
            for _, opener in waiting:
                os.write(opener, b"1")
                os.close(opener)
            print(*(os.waitpid(pid, 0)[1] for pid, _ in waiting), flush=True)
            waiting = []
            continue
        gate, opener = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(opener)
            _child(gate, line)
        os.close(gate)
        waiting.append((pid, opener))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
