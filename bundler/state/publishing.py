"""A publish: how a new set of states appears at once, and survives whatever interrupts it.

**A publish** is decided by one rename, that of the journal, after everything staged is on disk.
Before it, whatever happens leaves the old set. After it, each key changes by an atomic exchange
with its staged directory, and whoever comes next finishes what is left before reading anything:

1. P stages and fsyncs the new trees, then renames ``journal.json`` into place.
2. P exchanges key A. P dies.
3. Q takes the lock and finds the journal. A's staged tree does not have the digest that the
   journal promises, so it is the old one and A is done; B's has it, so Q exchanges B.
4. Q moves away what has no component any more, puts the manifest in place, removes the journal.

**Several directories** are published as one set by `publish_together`. Each writes its journal as
``prepared.json``, which decides nothing; then one rename, of ``set.json`` in the first directory,
decides for all of them. Whoever finds a ``prepared.json`` looks there: is the set decided on, it is
a journal; else it is dropped. Who finds ``set.json`` finishes the others first and then removes it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from bundler.errors import InputOutputError
from bundler.state.bundle import STAGING_NAME
from bundler.state.tree import name_problem, scan
from bundler.system.atomic import (
    exchange,
    io_errors,
    leftovers,
    remove_leftover,
    sync_directory,
    write_synced,
)


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """states: key directory to the dirHash it shall have. files: names to put in place.

    decided_in: the state directory whose ``set.json`` decides, relative to this one; identity: of
    that decision. Both are empty where this is the only directory.
    """

    states: dict[str, str]
    removed: tuple[str, ...]
    files: tuple[str, ...]
    decided_in: str = ""
    identity: str = ""


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decision. members: state directories, relative to the one that this lies in."""

    identity: str
    members: tuple[str, ...]


class Publisher(msgspec.Struct, frozen=True):
    """Publishes in one state directory. Its lock is held, but for `is_pending`."""

    path: Path

    @property
    def staging(self) -> Path:
        return self.path / STAGING_NAME

    @property
    def run(self) -> Path:
        """Where new states are staged, and the replaced ones lie until the end."""
        return self.staging / "run"

    @property
    def _journal(self) -> Path:
        return self.staging / "journal.json"

    @property
    def _prepared(self) -> Path:
        return self.staging / "prepared.json"

    @property
    def _set(self) -> Path:
        return self.staging / "set.json"

    def is_pending(self) -> bool:
        """Whether a publish was begun that has to be finished, or dropped."""
        with io_errors(self.path):
            return any(path.exists() for path in (self._journal, self._prepared, self._set))

    def sweep(self) -> None:
        """Removes files that a process was writing when it was killed."""
        for directory in (self.path, self.staging):
            for left in leftovers(directory):
                remove_leftover(left)

    def recover(self, finish: Callable[[Path], None]) -> None:
        """Finishes what was decided on, drops what was not.

        finish: does the same in another state directory, under its own lock.
        """
        self._settle_prepared()
        journal = _decoded(self._journal, Journal, self.path)
        if journal is not None:
            for name in (*journal.states, *journal.removed, *journal.files):
                _refuse_path(name, self._journal)
            for name, dir_hash in journal.states.items():
                if not self._is_installed(name, dir_hash):
                    exchange(self.run / name, self.path / name)
            self._tidy(journal)
        decision = _decoded(self._set, Decision, self.path)
        if decision is not None:
            for member in decision.members:
                if member != ".":
                    finish(Path(os.path.normpath(self.path / member)))
            self.end_set()

    def _settle_prepared(self) -> None:
        """Makes what was prepared a journal, if its set was decided on; else drops it."""
        prepared = _decoded(self._prepared, Journal, self.path)
        with io_errors(self.path):
            if prepared is None:
                return
            if self._is_decided(prepared):
                os.replace(self._prepared, self._journal)
            else:
                self._prepared.unlink()
                remove(self.run)
            sync_directory(self.staging)

    def _is_decided(self, prepared: Journal) -> bool:
        first = Path(os.path.normpath(self.path / prepared.decided_in)) / STAGING_NAME
        decision = _decoded(first / self._set.name, Decision, self.path)
        return decision is not None and decision.identity == prepared.identity

    def abandon(self) -> None:
        """Forgets what was staged, unless it was decided on."""
        prepared = _decoded(self._prepared, Journal, self.path)
        with io_errors(self.path):
            if self._journal.exists() or (prepared is not None and self._is_decided(prepared)):
                return
            self._prepared.unlink(missing_ok=True)
        remove(self.run)

    # --- the steps of a publish -------------------------------------------------------------------

    def decide_alone(self, journal: Journal) -> None:
        """The decision, where this directory is the whole set."""
        with io_errors(self.path):
            write_synced(self._journal, msgspec.json.encode(journal))

    def prepare(self, journal: Journal) -> None:
        """What is to be done once the set is decided on."""
        with io_errors(self.path):
            write_synced(self._prepared, msgspec.json.encode(journal))

    def decide_set(self, decision: Decision) -> None:
        """The decision for several directories, of which this is the first."""
        with io_errors(self.path):
            write_synced(self._set, msgspec.json.encode(decision))

    def carry_out(self, journal: Journal) -> None:
        """Does what was decided."""
        with io_errors(self.path):
            if self._prepared.exists():
                os.replace(self._prepared, self._journal)
                sync_directory(self.staging)
            for name in journal.states:
                exchange(self.run / name, self.path / name)
        self._tidy(journal)

    def end_set(self) -> None:
        """All directories of the set are whole."""
        with io_errors(self.path):
            self._set.unlink()
            sync_directory(self.staging)

    def _tidy(self, journal: Journal) -> None:
        """The part of a publish that is the same whether it is done at once or finished later."""
        with io_errors(self.path):
            for name in journal.removed:
                if (self.path / name).exists():
                    os.replace(self.path / name, self.run / f"@removed-{name}")
            for name in journal.files:
                if (self.run / name).exists():
                    os.replace(self.run / name, self.path / name)
            sync_directory(self.path)
            self._journal.unlink()
            sync_directory(self.staging)
        remove(self.run)

    def _is_installed(self, name: str, dir_hash: str) -> bool:
        """Whether an interrupted publish came as far as this key."""
        staged, live = self.run / name, self.path / name
        with io_errors(live):
            if staged.exists() and scan(staged).dir_hash == dir_hash:
                return False
            if live.exists() and scan(live).dir_hash == dir_hash:
                return True
        raise InputOutputError(
            f"{live} is neither the state that was published nor the one before it.",
            hint=f"Run: rm -r '{self.path}', then refresh again.",
        )


_Decoded = TypeVar("_Decoded", bound=msgspec.Struct)


def _decoded(path: Path, model: type[_Decoded], directory: Path) -> _Decoded | None:
    """One of our own small files; None where there is none. Raises `InputOutputError`."""
    raw = read(path)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=model)
    except msgspec.DecodeError as error:
        raise InputOutputError(
            f"{path} is damaged, so it cannot be told which states are whole.",
            hint=f"Run: rm -r '{directory}', then refresh again.",
        ) from error


def read(path: Path) -> bytes | None:
    with io_errors(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def _refuse_path(name: str, journal: Path) -> None:
    if "/" in name or name_problem(name):
        raise InputOutputError(f"{journal} names {name!r}, which is no key directory.")


def remove(path: Path) -> None:
    """Removes a tree of the staging area, also one that was left read-only."""
    with suppress(OSError):  # ignore_errors does not ignore all of them
        shutil.rmtree(path)
    with io_errors(path):
        if path.exists():
            for directory, _, _ in os.walk(path):
                with suppress(OSError):
                    os.chmod(directory, 0o700)
            shutil.rmtree(path)
