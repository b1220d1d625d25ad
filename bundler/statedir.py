"""The state directory: where keys lie, who may write, and how a new set of states appears at once.

    .local_defs_state/
      .gitignore          what Dagster writes: ignores everything, itself too
      @manifest.json      what is here (`bundler.manifest`)
      @verify.py          checks the states at the start of the program
      @run.json           the run record; stays on this machine
      @staging/           stays on this machine
        lock, holder      one writer at a time, and who it is
        journal.json      a publish that was decided on and is not finished
        run/              states on their way in, then the states they replaced
      <sanitised key>/    one state tree: ``state`` and its siblings

**A publish** is decided by one rename, that of the journal, after everything staged is on disk.
Before it, whatever happens leaves the old set. After it, each key changes by an atomic exchange
with its staged directory, and whoever comes next finishes what is left before reading anything:

1. P stages and fsyncs the new trees, then renames ``journal.json`` into place.
2. P exchanges key A. P dies.
3. Q takes the lock and finds the journal. A's staged tree does not have the digest that the
   journal promises, so it is the old one and A is done; B's has it, so Q exchanges B.
4. Q moves away what has no component any more, puts the manifest in place, removes the journal.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bundler.atomic import exchange, io_errors, sync_directory, sync_tree, write_synced
from bundler.bundle import MANIFEST_NAME, RUN_RECORD_NAME, STAGING_NAME, VERIFIER_NAME, Bundle
from bundler.errors import ConfigurationError, InputOutputError, Locked
from bundler.manifest import (
    Contents,
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
from bundler.tree import fold, hash_stream, name_problem, scan

IGNORE_NAME = ".gitignore"
# The bytes that Dagster writes when it makes the directory itself.
_IGNORE_EVERYTHING = b"*\n*/\n.*"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
# What `write_synced` calls a file before it is whole.
_UNFINISHED = re.compile(r"(\.gitignore|journal\.json)\.[0-9]+\.new")
_MAX_KEY_BYTES = 255
_DEFAULT_LOCK_SECONDS = 10.0


def sanitize_key(key: str) -> str:
    """The name of a key's directory, as Dagster makes it."""
    return _UNSAFE.sub("__", key)


def check_keys(keys: Iterable[str]) -> None:
    """Refuses keys whose directories would be unsafe or one and the same.

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
                f"{sanitize_key(key)}, and overwrite each other.",
                hint="Give one of them a key of its own (`defs_state: {key: …}`).",
                key=key,
            )


def _key_problem(key: str) -> str | None:
    name = sanitize_key(key)
    if name in ("", ".", "..", IGNORE_NAME):
        return f"makes the directory name {name!r}, which is not safe"
    if len(name.encode()) > _MAX_KEY_BYTES:
        return f"makes a directory name longer than {_MAX_KEY_BYTES} bytes"
    if any(unicodedata.category(character) == "Cc" for character in key):
        return "holds a control character"
    return None


@dataclass(frozen=True)
class Published:
    """What a state directory says of itself."""

    manifest: Manifest
    record: RunRecord | None


@dataclass(frozen=True)
class Publication:
    """What a publish did. changed and removed are names of key directories."""

    bundle: Bundle
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class _Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """states: key directory to the dirHash it shall have. files: names to put in place."""

    states: dict[str, str]
    removed: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class StateDir:
    """A state directory on disk; it need not exist yet.

    place: relative to the root from which the program imports, such as
    ``shop/defs/.local_defs_state``.
    """

    path: Path
    place: str

    @property
    def _staging(self) -> Path:
        return self.path / STAGING_NAME

    @property
    def _journal(self) -> Path:
        return self._staging / "journal.json"

    @property
    def _run(self) -> Path:
        return self._staging / "run"

    def read(self) -> Published | None:
        """The manifest and the run record; None where nothing was ever published.

        Finishes an interrupted publish first. Raises `VerificationFailed` for a manifest that is
        malformed; does not look at the states themselves.
        """
        self.finish()
        raw = _read(self.path / MANIFEST_NAME)
        if raw is None:
            return None
        record = _read(self.path / RUN_RECORD_NAME)
        return Published(
            parse(raw, f"{self.path / MANIFEST_NAME}"),
            None
            if record is None
            else decode_canonical(record, RunRecord, f"{self.path / RUN_RECORD_NAME}"),
        )

    def finish(self) -> None:
        """Finishes an interrupted publish, if there is one. Raises `InputOutputError`, `Locked`."""
        if self._journal.exists():
            with self.lock():
                pass

    def bundle(self) -> Bundle | None:
        """The published states as a bundle; None where nothing was ever published."""
        published = self.read()
        if published is None:
            return None
        return Bundle(self.path, published.manifest, self.place)

    @contextmanager
    def lock(self, timeout: float = _DEFAULT_LOCK_SECONDS) -> Iterator[None]:
        """Holds the directory for this process and finishes an interrupted publish.

        timeout: seconds to wait for another process. Raises `Locked` naming it after that.
        """
        from filelock import FileLock, Timeout

        with io_errors(self.path):
            self._staging.mkdir(parents=True, exist_ok=True)
            self._protect()
            lock = FileLock(self._staging / "lock")
            try:
                lock.acquire(timeout=timeout)
            except Timeout as error:
                raise Locked(
                    f"{self.path} is locked by {self._holder()}.",
                    hint="Wait for the other refresh to end, or stop it.",
                ) from error
        try:
            self._sweep()
            self._sign()
            self._recover()
            yield
        finally:
            with io_errors(self.path):
                lock.release()

    @contextmanager
    def staging(self, timeout: float = _DEFAULT_LOCK_SECONDS) -> Iterator[Staging]:
        """Locks the directory and gives an empty place to write new states to."""
        with self.lock(timeout):
            _remove(self._run)
            with io_errors(self._run):
                self._run.mkdir()
            try:
                yield Staging(self, self._run, self._commit)
            finally:
                if not self._journal.exists():
                    _remove(self._run)

    def _sweep(self) -> None:
        """Removes files that a process was writing when it was killed."""
        with io_errors(self.path):
            for directory in (self.path, self._staging):
                for child in os.scandir(directory):
                    unfinished = _UNFINISHED.fullmatch(child.name)
                    if unfinished and child.is_file(follow_symlinks=False):
                        os.unlink(child)

    def _protect(self) -> None:
        ignore = self.path / IGNORE_NAME
        if not ignore.exists():
            write_synced(ignore, _IGNORE_EVERYTHING)

    def _sign(self) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        with suppress(OSError):  # it only serves another process's message
            (self._staging / "holder").write_text(f"process {os.getpid()} since {now}")

    def _holder(self) -> str:
        try:
            return (self._staging / "holder").read_text(errors="replace")[:100]
        except OSError:
            return "another process"

    def _recover(self) -> None:
        """Finishes a publish that was decided on. The lock is held."""
        raw = _read(self._journal)
        if raw is None:
            return
        try:
            journal = msgspec.json.decode(raw, type=_Journal)
        except msgspec.DecodeError as error:
            raise InputOutputError(
                f"{self._journal} is damaged, so it cannot be told which states are whole.",
                hint=f"Run: rm -r '{self.path}', then refresh again.",
            ) from error
        for name in (*journal.states, *journal.removed, *journal.files):
            _refuse_path(name, self._journal)
        for name, dir_hash in journal.states.items():
            if not self._is_installed(name, dir_hash):
                exchange(self._run / name, self.path / name)
        self._tidy(journal)

    def _commit(self, journal: _Journal) -> None:
        """Decides on a publish, and carries it out."""
        with io_errors(self.path):
            write_synced(self._journal, msgspec.json.encode(journal))
            for name in journal.states:
                exchange(self._run / name, self.path / name)
            self._tidy(journal)

    def _tidy(self, journal: _Journal) -> None:
        """The part of a publish that is the same whether it is done at once or finished later."""
        with io_errors(self.path):
            for name in journal.removed:
                if (self.path / name).exists():
                    os.replace(self.path / name, self._run / f"@removed-{name}")
            for name in journal.files:
                if (self._run / name).exists():
                    os.replace(self._run / name, self.path / name)
            sync_directory(self.path)
            self._journal.unlink()
            sync_directory(self._staging)
        _remove(self._run)

    def _is_installed(self, name: str, dir_hash: str) -> bool:
        """Whether an interrupted publish came as far as this key."""
        staged, live = self._run / name, self.path / name
        if staged.exists() and scan(staged).dir_hash == dir_hash:
            return False
        if live.exists() and scan(live).dir_hash == dir_hash:
            return True
        raise InputOutputError(
            f"{live} is neither the state that was published nor the one before it.",
            hint=f"Run: rm -r '{self.path}', then refresh again.",
        )


@dataclass(frozen=True)
class Staging:
    """New states on their way into a state directory. Nothing is visible before `publish`."""

    directory: StateDir
    path: Path
    _commit: Callable[[_Journal], None]

    def key_directory(self, key: str) -> Path:
        """A new, empty key directory; the component writes ``state`` into it."""
        target = self.path / sanitize_key(key)
        _remove(target)
        with io_errors(target):
            target.mkdir()
        return target

    def discard(self, key: str) -> None:
        """Forgets what was staged for a key: what is published stays."""
        _remove(self.path / sanitize_key(key))

    def publish(
        self,
        states: Sequence[State],
        non_local: Sequence[NonLocalKey],
        record: Callable[[Manifest], RunRecord],
    ) -> Publication:
        """Makes these states, and no others, the contents of the state directory.

        A state that was not staged stays as it is. `record` makes the run record of the manifest.
        Raises `InputOutputError`; the set is then the old one, or whole after the next command.
        """
        live = self.directory.path
        changed = tuple(state.path for state in states if (self.path / state.path).exists())
        removed = tuple(sorted(self._leftovers({state.path for state in states})))
        with io_errors(live):
            manifest = build(Contents(tuple(states), tuple(non_local)), self._support())
            write_synced(self.path / MANIFEST_NAME, manifest.raw)
            write_synced(self.path / RUN_RECORD_NAME, canonical(record(manifest)))
            for name in changed:
                sync_tree(self.path / name)
            sync_directory(self.path)
        self._commit(
            _Journal(
                {state.path: state.digest.dir_hash for state in states if state.path in changed},
                removed,
                (VERIFIER_NAME, RUN_RECORD_NAME, MANIFEST_NAME),
            )
        )
        return Publication(Bundle(live, manifest, self.directory.place), changed, removed)

    def _leftovers(self, expected: set[str]) -> Iterator[str]:
        for child in os.scandir(self.directory.path):
            ours = child.name.startswith("@")
            if child.is_dir(follow_symlinks=False) and not ours and child.name not in expected:
                yield child.name

    def _support(self) -> tuple[File, ...]:
        """Our files beside the states; the verifier is staged, the ignore file stays."""
        write_synced(self.path / VERIFIER_NAME, _verifier())
        return (
            _file(IGNORE_NAME, self.directory.path / IGNORE_NAME),
            _file(VERIFIER_NAME, self.path / VERIFIER_NAME),
        )


def _verifier() -> bytes:
    from bundler import verify_at_start

    return Path(verify_at_start.__file__).read_bytes()


def _file(name: str, path: Path) -> File:
    with open(path, "rb") as stream:
        return File(name, *hash_stream(stream))


def _read(path: Path) -> bytes | None:
    with io_errors(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def _refuse_path(name: str, journal: Path) -> None:
    if "/" in name or name_problem(name):
        raise InputOutputError(f"{journal} names {name!r}, which is no key directory.")


def _remove(path: Path) -> None:
    """Removes a tree of the staging area, also one that was left read-only."""

    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for directory, _, _ in os.walk(path):
            with suppress(OSError):
                os.chmod(directory, 0o700)
        with io_errors(path):
            shutil.rmtree(path)
