"""State directories published by the real code, and how to interrupt that at every system call."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bundler.state.manifest import RunRecord, State, state_of
from bundler.state.statedir import Publication, Staging, StateDir, sanitize_key
from bundler.state.tree import scan

PLACE = "shop/defs/.local_defs_state"


def fill(staging: Staging, states: Mapping[str, Mapping[str, str]]) -> list[State]:
    """Writes states given as {key: {path: text}}, and describes them."""
    entries = []
    for key, files in states.items():
        target = staging.key_directory(key)
        for path, text in files.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text)
        entries.append(state_of(key, sanitize_key(key), scan(target)))
    return entries


def publish(directory: StateDir, states: Mapping[str, Mapping[str, str]]) -> Publication:
    """Publishes states given as {key: {path: text}}."""
    with directory.staging() as staging:
        return staging.publish(fill(staging, states), (), lambda _: RunRecord())


def snapshot(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "@staging" not in path.parts
    }


OLD = {"a": {"state": "old a"}, "b": {"state": "old b"}, "gone": {"state": "x"}}
NEW = {"a": {"state": "new a"}, "b": {"state": "new b", "project/p": "q"}, "c": {"state": "c"}}
_STEPS = (
    "os.replace",
    "os.fsync",
    "bundler.system.atomic._exchange",
    "os.unlink",
    "os.open",
    "os.mkdir",
)


class Died(BaseException):
    """Stands for a process that ends between two system calls."""


def interrupt(
    monkeypatch: pytest.MonkeyPatch, at: int, failure: Callable[[], BaseException]
) -> list[int]:
    """Lets the system call number `at` of a publish fail; counts them in the list returned."""
    count = [0]

    def wrap(original: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **kwargs: object) -> object:
            count[0] += 1
            if count[0] == at:
                raise failure()
            return original(*args, **kwargs)

        return step

    for name in _STEPS:
        module, _, attribute = name.rpartition(".")
        monkeypatch.setattr(
            sys.modules[module], attribute, wrap(getattr(sys.modules[module], attribute))
        )
    return count


def failure_of(kind: str) -> BaseException:
    return Died() if kind == "kill" else OSError(28, os.strerror(28))
