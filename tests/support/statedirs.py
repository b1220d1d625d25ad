"""State directories published by the real code, and how to interrupt that at every system call."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bundler.state.manifest import DirectoryRefresh, State, state_of
from bundler.state.statedir import Publication, Staging, StateDir, sanitize_key
from bundler.state.tree import scan

PLACE = "shop/defs/.local_defs_state"
NOTHING_FETCHED = DirectoryRefresh(PLACE, ())


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
        return staging.publish(fill(staging, states), (), NOTHING_FETCHED)


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


def rewrite_manifest(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edits a manifest as somebody would who renews all of its digests, and drops the record."""
    (directory / "@run.json").unlink(missing_ok=True)
    path = directory / "@manifest.json"
    statement = json.loads(path.read_bytes())
    edit(statement)
    predicate = statement["predicate"]
    contents = predicate["contents"]
    for state in contents["states"]:
        files = sorted((file["path"], file["sha256"]) for file in state["files"])
        lines = "".join(f"{sha256}  {name}\n" for name, sha256 in files)
        state["digest"]["dirHash"] = hashlib.sha256(lines.encode()).hexdigest()
    statement["subject"] = [
        {"digest": {"dirHash": state["digest"]["dirHash"]}, "name": state["key"]}
        for state in contents["states"]
    ]
    for name, digest in (("contents", "contentDigest"), ("support", "supportDigest")):
        domain = f"state-bundle-{name}/v1\0".encode()
        predicate[digest] = hashlib.sha256(domain + _canonical(predicate[name])).hexdigest()
    path.write_bytes(_canonical(statement))


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def file_entry(path: Path, name: str) -> dict[str, Any]:
    """A manifest's entry for a file, under this name."""
    data = path.read_bytes()
    return {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
