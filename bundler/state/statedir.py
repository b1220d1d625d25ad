"""The state directory: where keys are, who may write, and how a new set of states appears
atomically.

    .local_defs_state/
      .gitignore          what Dagster writes: ignores everything, itself too
      @manifest.json      what is here (`bundler.state.manifest`)
      @verify.py          checks the states at the start of the program
      @run.json           the run record; stays on this machine
      @staging/           stays on this machine
        lock, holder      one writer at a time, and who it is
        journal.json      a publish that was decided on and is not finished
        prepared.json     one that is to be decided on together with other directories
        set.json          in the first of these: the decision
        run/              states on their way in, then the states they replaced
      <sanitised key>/    one state tree: ``state`` and its siblings

How a publish is made atomic and durable is described in `bundler.state.publishing`.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shlex import quote

import msgspec

from bundler.errors import ConfigurationError, InputOutputError, Locked, VerificationFailed
from bundler.git.tracked import tracked_below
from bundler.state.bundle import (
    MANIFEST_NAME,
    RUN_RECORD_NAME,
    STAGING_NAME,
    STATE_DIRECTORY,
    VERIFIER_NAME,
    Bundle,
    verifier,
)
from bundler.state.manifest import (
    Contents,
    DirectoryRefresh,
    File,
    Manifest,
    NonLocalKey,
    RunRecord,
    State,
    build,
    canonical,
    decode_canonical,
    parse,
)
from bundler.state.publishing import FILES, Decision, Journal, Publisher, is_pending
from bundler.state.run_record import TOOL
from bundler.state.source_path import ADVICE, is_allowed
from bundler.state.tree import fold, has_dir_hash, hash_stream
from bundler.system.atomic import io_errors, make_directories, restrict_modes, sync_tree
from bundler.system.folder import OpenDirectory
from bundler.system.times import now
from bundler.system.wording import listed
from bundler.verify_at_start import sanitize_key as sanitize_key  # noqa: PLC0414  # a name of this module, too

IGNORE_NAME = ".gitignore"
# What a directory may contain before the first publish, and git may track there.
_RULES = (IGNORE_NAME, ".gitkeep", ".keep")
# The bytes that Dagster writes when it creates the directory itself.
IGNORE_EVERYTHING = b"*\n*/\n.*"
_HOLDER = re.compile(r"process [0-9]+ since [0-9TZ:-]{20}")
_MAX_KEY_BYTES = 255
_LOCK = "lock"
_DEFAULT_LOCK_SECONDS = 10.0
_POLL_SECONDS = 0.05
_SHOWN_NAMES = 5


def check_keys(keys: Iterable[str]) -> None:
    """Refuses keys whose directories would be unsafe or identical.

    Raises `ConfigurationError` naming the keys.
    """
    seen: dict[str, str] = {}
    for key in keys:
        problem = _key_problem(key)
        if problem:
            raise ConfigurationError(
                f"The defs state key {key!r} {problem}.",
                hint="Give the component another key (`defs_state: {key: …}`).",
                key=key,
            )
        twin = seen.setdefault(fold(sanitize_key(key)), key)
        if twin != key:
            raise ConfigurationError(
                f"The defs state keys {twin!r} and {key!r} would share the directory "
                f"{sanitize_key(key)} and overwrite each other.",
                hint="Give one of them its own key (`defs_state: {key: …}`).",
                key=key,
            )


def _key_problem(key: str) -> str | None:
    name = sanitize_key(key)
    if name in ("", ".", "..", IGNORE_NAME):
        return f"makes the directory name {name!r}, which is not safe"
    if len(name.encode()) > _MAX_KEY_BYTES:
        return f"makes a directory name longer than {_MAX_KEY_BYTES} bytes"
    if any(unicodedata.category(character) == "Cc" for character in key):
        return "contains a control character"
    return None


class PublishedState(msgspec.Struct, frozen=True):
    """The manifest and the run record of a state directory."""

    manifest: Manifest
    record: RunRecord | None


class Publication(msgspec.Struct, frozen=True):
    """What a publish did. changed and removed are names of key directories.

    refresh: how the states were made. others: what else is in the state directory, which we did not
    publish and left alone.
    """

    bundle: Bundle
    refresh: DirectoryRefresh
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    others: tuple[str, ...] = ()


class StateDir(msgspec.Struct, frozen=True):
    """A state directory on disk; it need not exist yet.

    place: relative to the root from which the program imports, such as
    ``shop/defs/.local_defs_state``. allowed: patterns of whole paths that are in git on purpose.
    """

    path: Path
    place: str
    allowed: tuple[str, ...] = ()

    def read(self) -> PublishedState | None:
        """The manifest and the run record; None if nothing was ever published. Changes nothing.

        Raises `VerificationFailed` for a malformed manifest and while a publish is interrupted,
        `Locked` while another process publishes. Does not look at the states themselves.
        """
        refuse_interrupted(self.path)
        with io_errors(self.path):
            try:
                with OpenDirectory(self.path) as live:
                    raw, record = live.read(MANIFEST_NAME), live.read(RUN_RECORD_NAME)
            except FileNotFoundError:
                return None
        if raw is None:
            return None
        try:
            manifest = parse(raw, f"{self.path / MANIFEST_NAME}")
        except VerificationFailed as error:
            error.hint = error.hint or f"Restore it, or remove {self.path}; then refresh."
            raise
        if record is None:
            return PublishedState(manifest, None)
        what = f"{self.path / RUN_RECORD_NAME}"
        return PublishedState(manifest, decode_canonical(record, RunRecord, what))

    def bundle(self) -> Bundle | None:
        """The published states as a bundle; None if nothing was ever published."""
        published = self.read()
        if published is None:
            return None
        return Bundle(self.path, published.manifest, self.place)

    def check(self) -> bool:
        """Whether the manifest can only be ours, if there is one: git does not track it.

        Changes nothing. Raises `ConfigurationError` if a publish would overwrite what others
        have made, `ToolFailed` if git cannot say what it tracks.
        """
        names: list[str] = []
        with io_errors(self.path), suppress(FileNotFoundError), OpenDirectory(self.path) as live:
            names = live.names()
        tracked = tracked_below(self.path)
        self._refuse_tracked(tracked)
        if STAGING_NAME not in names:  # else another process may be publishing
            self._refuse_foreign(names)
        return MANIFEST_NAME not in tracked

    def _refuse_tracked(self, tracked: Iterable[str]) -> None:
        for name in tracked:
            is_state = self.path.name == STATE_DIRECTORY  # the guard judges whether git may have it
            if name.split("/")[0] == STAGING_NAME:
                raise ConfigurationError(
                    f"git tracks {self.path / name}, so it came with the repository, but only "
                    "state-bundler may write there.",
                    hint=f"Run: {self._forget(STAGING_NAME)}, then remove it.",
                )
            is_rule = name.rpartition("/")[2] in _RULES
            if not (is_state or is_rule or is_allowed(str(self.path / name), self.allowed)):
                raise ConfigurationError(
                    f"git tracks {self.path / name}, so {self.path} is not used for state only: a "
                    "refresh would replace and remove what is there.",
                    hint=ADVICE,
                )

    def _forget(self, name: str) -> str:
        """The command that removes a path from git's index, wherever it is run."""
        there = next(path for path in (self.path, *self.path.parents) if path.is_dir())
        return f"git -C {quote(str(there))} rm -r -f --cached -- {quote(str(self.path / name))}"

    def _refuse_foreign(self, names: Iterable[str]) -> None:
        """Without a manifest of ours, the directory's contents were made by others."""
        foreign = sorted(set(names) - {STAGING_NAME, *_RULES})
        if self.path.name == STATE_DIRECTORY or not foreign or MANIFEST_NAME in foreign:
            return
        if all(is_allowed(str(self.path / name), self.allowed) for name in foreign):
            return
        shown = listed([*map(repr, foreign)], _SHOWN_NAMES)
        raise ConfigurationError(
            f"{self.path} contains {shown}, which state-bundler did not write: a refresh "
            "would replace and remove it.",
            hint=ADVICE,
        )

    @contextmanager
    def lock(self, timeout: float = _DEFAULT_LOCK_SECONDS) -> Iterator[Publisher]:
        """Holds the directory for this process and finishes an interrupted publish.

        timeout: seconds to wait for another process. Raises `Locked` naming it after that, and as
        `check` does.
        """
        is_manifest_ours = self.check()
        with ExitStack() as stack:
            with io_errors(self.path):
                make_directories(self.path)
                live = stack.enter_context(OpenDirectory(self.path))
                live.make_folder(STAGING_NAME)
                staging = stack.enter_context(live.folder(STAGING_NAME))
            stack.enter_context(_locked(staging, timeout))
            publisher = Publisher(live, staging, trusts_manifest=is_manifest_ours)
            publisher.sweep()
            publisher.recover(_finish_member)
            self._refuse_foreign(live.names())
            with io_errors(self.path):
                if live.status(IGNORE_NAME) is None:
                    live.write(IGNORE_NAME, IGNORE_EVERYTHING)
            yield publisher

    @contextmanager
    def staging(self, timeout: float = _DEFAULT_LOCK_SECONDS) -> Iterator[Staging]:
        """Locks the directory and give an empty place to write new states to."""
        with self.lock(timeout) as publisher:
            run = publisher.make_run()
            try:
                yield Staging(self, publisher, run)
            finally:
                publisher.abandon()


def refuse_interrupted(path: Path) -> None:
    """Waits for a publish that is going on in a state directory. Changes nothing.

    Raises `VerificationFailed` for one that was interrupted: what is there is then partly old and
    partly new. Raises `Locked` if it takes too long.
    """
    end = time.monotonic() + _DEFAULT_LOCK_SECONDS
    while is_pending(path):
        holder = _holder_now(path)
        if holder is None and is_pending(path):
            raise VerificationFailed(
                f"A publish in {path} was interrupted: some of its states may be new and some old.",
                hint="Run: state-bundler refresh",
            )
        if holder is not None and time.monotonic() > end:
            raise Locked(
                f"{holder} is publishing in {path}.", hint="Wait for it to end, then try again."
            )
        time.sleep(_POLL_SECONDS)


def _holder_now(path: Path) -> str | None:
    """The process that holds the lock of a state directory; None if there is none."""
    with (
        io_errors(path),
        suppress(FileNotFoundError),
        OpenDirectory(path) as live,
        live.folder(STAGING_NAME) as staging,
        staging.file(_LOCK) as descriptor,
    ):
        return None if _try_lock(descriptor, fcntl.LOCK_SH) else _holder(staging)
    return None


def _finish_member(path: Path, identity: str) -> None:
    """Finishes another state directory's part of a decision."""
    is_part = False
    with (
        io_errors(path),
        suppress(FileNotFoundError),
        OpenDirectory(path) as live,
        live.folder(STAGING_NAME) as staging,
    ):
        is_part = Publisher(live, staging).belongs_to(identity)
    if is_part:
        with StateDir(path, "").lock():
            pass


@contextmanager
def _locked(staging: OpenDirectory, timeout: float) -> Iterator[None]:
    end = time.monotonic() + timeout
    with ExitStack() as stack:
        with io_errors(staging.path):
            lock = stack.enter_context(staging.file(_LOCK, os.O_RDWR | os.O_CREAT))
            while not _try_lock(lock, fcntl.LOCK_EX):
                if time.monotonic() >= end:
                    raise Locked(
                        f"{staging.path.parent} is locked by {_holder(staging)}.",
                        hint="Wait for the other refresh to finish, or stop it.",
                    )
                time.sleep(_POLL_SECONDS)
            holder = f"process {os.getpid()} since {now()}"
            staging.write("holder", holder.encode(), durable=False)
        yield


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(staging: OpenDirectory) -> str:
    """The process that holds the lock, for a message."""
    found = _HOLDER.fullmatch((staging.read("holder") or b"").decode(errors="replace"))
    return found[0] if found else "another process"


class Staging(msgspec.Struct, frozen=True):
    """New states on their way into a state directory. Nothing is visible before `publish`."""

    directory: StateDir
    publisher: Publisher
    path: Path

    def key_directory(self, key: str) -> Path:
        """A new, empty key directory; the component writes ``state`` into it."""
        name = sanitize_key(key)
        with self.publisher.run() as run:
            run.clear(name)
            run.make_folder(name)
        return self.path / name

    def discard(self, key: str) -> None:
        """Discards what was staged for a key: the published state stays."""
        with self.publisher.run() as run:
            run.clear(sanitize_key(key))

    def publish(
        self,
        states: Sequence[State],
        non_local: Sequence[NonLocalKey],
        refresh: DirectoryRefresh,
    ) -> Publication:
        """Makes these states, and no others, the contents of the state directory.

        Raises `InputOutputError`; the set is then the old one, or whole after the next publish.
        """
        (publication,) = publish_together([self.ready(states, non_local, refresh)])
        return publication

    def ready(
        self,
        states: Sequence[State],
        non_local: Sequence[NonLocalKey],
        refresh: DirectoryRefresh,
    ) -> Ready:
        """Writes these states to disk, next to what is published.

        A state that was not staged stays as it is. refresh: how the states were made. Other states
        that were published before are removed. Raises `InputOutputError`, and `ConfigurationError`
        if a key has the name of something that we did not publish.
        """
        live = self.directory.path
        owned = self.publisher.owned()
        expected = {state.path for state in states}
        with self.publisher.run() as run:
            changed = tuple(state.path for state in states if run.is_folder(state.path))
            self.publisher.refuse_foreign(changed, owned)
            entries = self.publisher.live.names()
            removed = tuple(sorted(owned.intersection(entries) - expected))
            kept = {*expected, *removed, *_RULES}
            others = (name for name in entries if name[0] != "@" and name not in kept)
            manifest = build(Contents(tuple(states), tuple(non_local)), self._support(run))
            run.write(MANIFEST_NAME, manifest.raw)
            bound = refresh.of(manifest)
            run.write(RUN_RECORD_NAME, canonical(RunRecord(refresh=(bound,), tool=TOOL)))
            for name in changed:
                restrict_modes(self.path / name)
                sync_tree(self.path / name)
            run.sync()
        journal = Journal(
            {state.path: state.digest.dir_hash for state in states if state.path in changed},
            removed,
            FILES,
        )
        bundle = Bundle(live, manifest, self.directory.place)
        publication = Publication(bundle, bound, changed, removed, tuple(sorted(others)))
        return Ready(self.publisher, journal, publication)

    def refuse_altered(self, states: Sequence[State]) -> None:
        """Raises `InputOutputError` for a state that is no longer what was checked.

        Other components still ran then, and the same user runs all.
        """
        for state in states:
            staged = self.path / state.path
            directory = staged if staged.is_dir() else self.directory.path / state.path
            if not has_dir_hash(directory, state.digest.dir_hash):
                raise InputOutputError(
                    f"{directory} is not the state of {state.key} that was checked: something has "
                    "changed or removed it meanwhile.",
                    hint="A component may only write to the path that it is given. Stop whatever "
                    "else writes to the state directory, then try again.",
                    key=state.key,
                )

    def _support(self, run: OpenDirectory) -> tuple[File, ...]:
        """Our files next to the states; the verifier is staged, the ignore file stays."""
        run.write(VERIFIER_NAME, verifier())
        return _file(IGNORE_NAME, self.publisher.live), _file(VERIFIER_NAME, run)


class Ready(msgspec.Struct, frozen=True):
    """A set of states that is on disk and waits for the decision."""

    publisher: Publisher
    journal: Journal
    publication: Publication


def publish_together(all_ready: Sequence[Ready]) -> tuple[Publication, ...]:
    """Publishes in several state directories atomically: in all of them, or in none.

    Their locks are held, and their staging is open. Raises `InputOutputError`; even then it is
    decided whether the set is old or new, and the next publish completes it.
    """
    if len(all_ready) == 1:
        all_ready[0].publisher.write(all_ready[0].journal)
    elif all_ready:
        _decide_together(all_ready)
    for ready in all_ready:
        ready.publisher.carry_out(ready.journal)
    if len(all_ready) > 1:
        all_ready[0].publisher.end_set()
    return tuple(ready.publication for ready in all_ready)


def _decide_together(all_ready: Sequence[Ready]) -> None:
    first = all_ready[0].publisher
    identity = uuid.uuid4().hex
    for ready in all_ready:
        where = os.path.relpath(first.path, ready.publisher.path)
        pointing = msgspec.structs.replace(ready.journal, decided_in=where, identity=identity)
        ready.publisher.write(pointing)
    members = tuple(os.path.relpath(ready.publisher.path, first.path) for ready in all_ready)
    first.write(Decision(identity, members))


def _file(name: str, folder: OpenDirectory) -> File:
    with folder.file(name) as descriptor, open(descriptor, "rb", closefd=False) as stream:
        return File(name, *hash_stream(stream))
