"""A publish: how a new set of states appears atomically, and survives any interruption.

**A publish** is decided by one rename, that of the journal, after everything staged is on disk.
Before it, whatever happens leaves the old set. After it, each key changes by an atomic exchange
with its staged directory, and the next command that publishes finishes what is left:

1. P stages and fsyncs the new trees, then renames ``journal.json`` into place.
2. P exchanges key A. P dies.
3. Q takes the lock and finds the journal. A's staged tree does not have the digest that the
   journal promises, so it is the old one and A is done; B's has it, so Q exchanges B.
4. Q moves away what has no component any more, puts the manifest in place, removes the journal.

**Several directories** are published as one set by `publish_together`. Each writes its journal as
``prepared.json``, which decides nothing; then one rename, of ``set.json`` in the first directory,
decides for all of them. A command that finds a ``prepared.json`` looks there: if the set was
decided on, it is a journal; else it is dropped. One that finds ``set.json`` finishes the others
first and then removes it.

**A journal moves files**, so it is acted on only if nobody else can have put it there: a regular
file with one name, owned by the user, not tracked by git, that names nothing but what a publish
moves. Everything happens by plain names below open directories (`bundler.system.folder`). Commands
that only read never finish or drop anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TypeVar

import msgspec

from bundler.errors import ConfigurationError, InputOutputError, VerificationFailed
from bundler.state.bundle import (
    MANIFEST_NAME,
    RUN_RECORD_NAME,
    STAGING_NAME,
    STATE_DIRECTORY,
    VERIFIER_NAME,
)
from bundler.state.manifest import parse
from bundler.state.tree import scan
from bundler.system.atomic import io_errors
from bundler.system.folder import OpenDirectory

FILES = (VERIFIER_NAME, RUN_RECORD_NAME, MANIFEST_NAME)
_RUN = "run"
_JOURNAL, _PREPARED, _SET = _JOURNALS = ("journal.json", "prepared.json", "set.json")
# What `Folder.write` calls a file before it is whole.
_UNFINISHED = re.compile(r"(\.gitignore|holder|(journal|prepared|set)\.json)\.[0-9]+\.new")
_KEY_DIRECTORY = re.compile(r"(?!\.{1,2}$|\.git$|\.gitignore$)[A-Za-z0-9._-]{1,255}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 64 * 1024 * 1024


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """states: key directory to the dirHash it shall have. files: names to put in place.

    decided_in: the state directory whose ``set.json`` decides, relative to this one; identity: of
    that decision. Both are empty if this is the only directory.
    """

    states: dict[str, str]
    removed: tuple[str, ...]
    files: tuple[str, ...]
    decided_in: str = ""
    identity: str = ""


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decision. members: the state directories of the set, relative to the one that holds it."""

    identity: str
    members: tuple[str, ...]


def is_key_directory(name: str) -> bool:
    """Whether a name is one that a key's directory can have."""
    return _KEY_DIRECTORY.fullmatch(name) is not None


def is_pending(path: Path) -> bool:
    """Whether a publish in a state directory was begun that has to be finished, or dropped."""
    return any(os.path.lexists(path / STAGING_NAME / name) for name in _JOURNALS)


class Publisher:
    """Publishes in one state directory, whose lock is held.

    live: the state directory. staging: the directory in it for what is on its way.
    trusts_manifest: whether the manifest in place can only be ours.
    """

    def __init__(
        self, live: OpenDirectory, staging: OpenDirectory, *, trusts_manifest: bool = False
    ) -> None:
        self.live = live
        self.staging = staging
        self.trusts_manifest = trusts_manifest

    @property
    def path(self) -> Path:
        return self.live.path

    def sweep(self) -> None:
        """Removes files that a process was writing when it was killed."""
        with io_errors(self.path):
            for folder in (self.live, self.staging):
                for name in folder.names():
                    if _UNFINISHED.fullmatch(name) and not folder.is_folder(name):
                        folder.remove(name)

    def make_run(self) -> Path:
        """A new, empty directory for new states; replaced ones are in it until the end."""
        with io_errors(self.path):
            self.staging.remove_tree(_RUN)
            self.staging.make_folder(_RUN)
        return self.staging.path / _RUN

    @contextmanager
    def run(self) -> Iterator[OpenDirectory]:
        """The directory for new states, open. What is done in it may raise `OSError`."""
        with io_errors(self.path):
            self.staging.make_folder(_RUN)
            with self.staging.folder(_RUN) as run:
                yield run

    def recover(self, finish: Callable[[Path, str], None]) -> None:
        """Finishes what was decided on, drops what was not.

        finish: does the same in another state directory, under its own lock,
        if what is pending there belongs to the decision with this identity.
        Raises `ConfigurationError` for a journal that someone else can have made,
        `InputOutputError` for one that cannot be carried out.
        """
        self._settle_prepared()
        journal = self._journal(_JOURNAL)
        if journal is not None:
            owned = self.owned()
            self._refuse_unowned(journal.removed, owned)
            self._install(journal, owned)
            self._tidy(journal)
        decision = _decoded(self.staging, _SET, Decision)
        if decision is not None:
            if any("\0" in member for member in decision.members):
                raise _not_ours(self.staging.path / _SET, "it does not name a directory")
            for member in decision.members:
                if member != ".":
                    finish(Path(os.path.normpath(self.path / member)), decision.identity)
            self.end_set()

    def belongs_to(self, identity: str) -> bool:
        """Whether what is pending is part of the decision with this identity."""
        pending = self._journal(_PREPARED) or self._journal(_JOURNAL)
        return pending is not None and pending.identity == identity

    def owned(self) -> frozenset[str]:
        """The key directories that the manifest in place names: those that we published."""
        raw = self.live.read(MANIFEST_NAME) if self.trusts_manifest else None
        try:
            manifest = parse(raw or b"", f"{self.path / MANIFEST_NAME}")
        except VerificationFailed:
            return frozenset()
        return frozenset(state.path for state in manifest.states if is_key_directory(state.path))

    def refuse_foreign(self, names: Collection[str], owned: Collection[str]) -> None:
        """Raises `ConfigurationError` for a name of a key that something else has.

        In Dagster's own directory, Dagster itself makes key directories.
        """
        for name in names:
            with io_errors(self.path):
                is_free = self.live.status(name) is None
                is_replaceable = name in owned or self.path.name == STATE_DIRECTORY
                if is_free or (is_replaceable and self.live.is_folder(name)):
                    continue
            raise ConfigurationError(
                f"{self.path / name} is not a state that state-bundler published, so it is not "
                "replaced.",
                hint="Move it elsewhere, or choose another path for the source; then refresh.",
            )

    def _refuse_unowned(self, names: Collection[str], owned: Collection[str]) -> None:
        for name in names:
            with io_errors(self.path):
                exists = self.live.status(name) is not None
            if exists and name not in owned:
                raise _not_ours(
                    self.staging.path / _JOURNAL, f"removes {name}, which is in no manifest"
                )

    def _settle_prepared(self) -> None:
        """Makes what was prepared a journal, if its set was decided on; else drops it."""
        prepared = self._journal(_PREPARED)
        if prepared is None:
            return
        is_decided = self._is_decided(prepared)
        with io_errors(self.path):
            if is_decided:
                self.staging.move(_PREPARED, self.staging, _JOURNAL)
            else:
                self.staging.remove(_PREPARED)
                self.staging.remove_tree(_RUN)
            self.staging.sync()

    def _is_decided(self, prepared: Journal) -> bool:
        first = Path(os.path.normpath(self.path / prepared.decided_in))
        with io_errors(first):
            try:
                with OpenDirectory(first) as live, live.folder(STAGING_NAME) as staging:
                    decision = _decoded(staging, _SET, Decision)
            except FileNotFoundError:
                return False
        return decision is not None and decision.identity == prepared.identity

    def abandon(self) -> None:
        """Forgets what was staged, unless it was decided on."""
        prepared = self._journal(_PREPARED)
        is_decided = prepared is not None and self._is_decided(prepared)
        with io_errors(self.path):
            if is_decided or self.staging.status(_JOURNAL) is not None:
                return
            self.staging.remove(_PREPARED, missing_ok=True)
            self.staging.remove_tree(_RUN)

    # --- the steps of a publish -------------------------------------------------------------------

    def write(self, value: Journal | Decision) -> None:
        """Writes what is decided. A journal that is part of a set is only prepared by that."""
        journal = _PREPARED if value.identity else _JOURNAL
        with io_errors(self.path):
            name = journal if isinstance(value, Journal) else _SET
            self.staging.write(name, msgspec.json.encode(value))

    def carry_out(self, journal: Journal) -> None:
        """Does what was decided."""
        with self.run() as run:
            if self.staging.status(_PREPARED) is not None:
                self.staging.move(_PREPARED, self.staging, _JOURNAL)
                self.staging.sync()
            for name in journal.states:
                run.exchange(name, self.live)
        self._tidy(journal)

    def end_set(self) -> None:
        """All directories of the set are whole."""
        with io_errors(self.path):
            self.staging.remove(_SET)
            self.staging.sync()

    def _tidy(self, journal: Journal) -> None:
        """The part of a publish that is the same whether it is done immediately or finished
        later."""
        with self.run() as run:
            for name in journal.removed:
                if self.live.status(name) is not None:
                    self.live.move(name, run, f"@removed-{name}")
            for name in journal.files:
                if run.status(name) is not None:
                    run.move(name, self.live)
        with io_errors(self.path):
            self.live.sync()
            self.staging.remove(_JOURNAL)
            self.staging.sync()
            self.staging.remove_tree(_RUN)

    def _install(self, journal: Journal, owned: Collection[str]) -> None:
        """Exchanges the keys that an interrupted publish did not come to."""
        with self.run() as run:
            left = [
                name
                for name, dir_hash in journal.states.items()
                if not _is_installed(run, self.live, name, dir_hash)
            ]
            self.refuse_foreign(left, owned)
            for name in left:
                run.exchange(name, self.live)

    def _journal(self, name: str) -> Journal | None:
        journal = _decoded(self.staging, name, Journal)
        if journal is None:
            return None
        wrong = [each for each in (*journal.states, *journal.removed) if not is_key_directory(each)]
        wrong += [each for each in journal.files if each not in FILES]
        wrong += [each for each in journal.states.values() if not _DIGEST.fullmatch(each)]
        wrong += [each for each in (journal.decided_in,) if "\0" in each]
        if wrong:
            raise _not_ours(self.staging.path / name, f"it names {wrong[0]!r}")
        return journal


_Decoded = TypeVar("_Decoded", bound=msgspec.Struct)


def _decoded(staging: OpenDirectory, name: str, model: type[_Decoded]) -> _Decoded | None:
    """One of our own small files; None if there is none.

    Raises `ConfigurationError` if someone else can have made it, `InputOutputError` if it is
    damaged.
    """
    path = staging.path / name
    with io_errors(path):
        try:
            with staging.file(name) as descriptor:
                status = os.fstat(descriptor)
                with open(descriptor, "rb", closefd=False) as stream:
                    raw = stream.read(_MOST_BYTES)
        except FileNotFoundError:
            return None
    if status.st_uid != os.geteuid():
        raise _not_ours(path, "it belongs to another user")
    if status.st_nlink != 1:
        raise _not_ours(path, "it has a second hard link")
    try:
        return msgspec.json.decode(raw, type=model)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputOutputError(
            f"{path} is damaged, so it is unknown which states are complete.",
            hint=f"Run: rm -r {quote(str(staging.path))}, then refresh again.",
        ) from error


def _not_ours(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is not the journal of one of your publishes: {why}. Nothing was moved.",
        hint=f"Find out where it came from. Run: rm -r {quote(str(path.parent))}, then refresh "
        "again.",
    )


def _is_installed(run: OpenDirectory, live: OpenDirectory, name: str, dir_hash: str) -> bool:
    """Whether an interrupted publish came as far as this key."""
    if run.is_folder(name) and scan(run.path / name).dir_hash == dir_hash:
        return False
    if live.is_folder(name) and scan(live.path / name).dir_hash == dir_hash:
        return True
    raise InputOutputError(
        f"{live.path / name} is neither the published state nor the previous one.",
        hint=f"Run: rm -r {quote(str(run.path.parent))}, then refresh again.",
    )
