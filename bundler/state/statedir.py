"""The state directory: where keys lie, who may write, and how a new set of states appears at once.

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

How a publish is made atomic and durable is told in `bundler.state.publishing`.
"""

from __future__ import annotations

import os
import re
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from bundler import verify_at_start
from bundler.errors import ConfigurationError, Locked
from bundler.state.bundle import MANIFEST_NAME, RUN_RECORD_NAME, VERIFIER_NAME, Bundle
from bundler.state.manifest import (
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
from bundler.state.publishing import Decision, Journal, Publisher, read, remove
from bundler.state.tree import fold, hash_stream
from bundler.system.atomic import io_errors, sync_directory, sync_tree, write_synced

IGNORE_NAME = ".gitignore"
# The bytes that Dagster writes when it makes the directory itself.
_IGNORE_EVERYTHING = b"*\n*/\n.*"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
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


class Published(msgspec.Struct, frozen=True):
    """What a state directory says of itself."""

    manifest: Manifest
    record: RunRecord | None


class Publication(msgspec.Struct, frozen=True):
    """What a publish did. changed and removed are names of key directories."""

    bundle: Bundle
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class StateDir(msgspec.Struct, frozen=True):
    """A state directory on disk; it need not exist yet.

    place: relative to the root from which the program imports, such as
    ``shop/defs/.local_defs_state``.
    """

    path: Path
    place: str

    @property
    def _staging(self) -> Path:
        return self._publisher.staging

    @property
    def _publisher(self) -> Publisher:
        return Publisher(self.path)

    def exists(self) -> bool:
        with io_errors(self.path):
            return self.path.exists()

    def read(self) -> Published | None:
        """The manifest and the run record; None where nothing was ever published.

        Finishes an interrupted publish first. Raises `VerificationFailed` for a manifest that is
        malformed; does not look at the states themselves.
        """
        self.finish()
        raw = read(self.path / MANIFEST_NAME)
        if raw is None:
            return None
        record = read(self.path / RUN_RECORD_NAME)
        return Published(
            parse(raw, f"{self.path / MANIFEST_NAME}"),
            None
            if record is None
            else decode_canonical(record, RunRecord, f"{self.path / RUN_RECORD_NAME}"),
        )

    def finish(self) -> None:
        """Finishes an interrupted publish, if there is one. Raises `InputOutputError`, `Locked`."""
        if self._publisher.is_pending():
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
            self._publisher.sweep()
            self._sign()
            self._publisher.recover(lambda other: StateDir(other, "").finish())
            yield
        finally:
            with io_errors(self.path):
                lock.release()

    @contextmanager
    def staging(self, timeout: float = _DEFAULT_LOCK_SECONDS) -> Iterator[Staging]:
        """Locks the directory and gives an empty place to write new states to."""
        with self.lock(timeout):
            run = self._publisher.run
            remove(run)
            with io_errors(run):
                run.mkdir()
            try:
                yield Staging(self, run)
            finally:
                self._publisher.abandon()

    def _protect(self) -> None:
        ignore = self.path / IGNORE_NAME
        if ignore.exists():
            return
        try:
            write_synced(ignore, _IGNORE_EVERYTHING)
        except FileNotFoundError:
            # Not locked yet: who holds the lock has swept away what we wrote, and has made its own.
            if not ignore.exists():
                raise

    def _sign(self) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        with suppress(OSError):  # it only serves another process's message
            (self._staging / "holder").write_text(f"process {os.getpid()} since {now}")

    def _holder(self) -> str:
        try:
            return (self._staging / "holder").read_text(errors="replace")[:100]
        except OSError:
            return "another process"


class Staging(msgspec.Struct, frozen=True):
    """New states on their way into a state directory. Nothing is visible before `publish`."""

    directory: StateDir
    path: Path

    def key_directory(self, key: str) -> Path:
        """A new, empty key directory; the component writes ``state`` into it."""
        target = self.path / sanitize_key(key)
        remove(target)
        with io_errors(target):
            target.mkdir()
        return target

    def discard(self, key: str) -> None:
        """Forgets what was staged for a key: what is published stays."""
        remove(self.path / sanitize_key(key))

    def publish(
        self,
        states: Sequence[State],
        non_local: Sequence[NonLocalKey],
        record: Callable[[Manifest], RunRecord],
    ) -> Publication:
        """Makes these states, and no others, the contents of the state directory.

        Raises `InputOutputError`; the set is then the old one, or whole after the next command.
        """
        (publication,) = publish_together([self.ready(states, non_local, record)])
        return publication

    def ready(
        self,
        states: Sequence[State],
        non_local: Sequence[NonLocalKey],
        record: Callable[[Manifest], RunRecord],
    ) -> Ready:
        """Brings these states to the disk, beside what is published.

        A state that was not staged stays as it is. `record` makes the run record of the manifest.
        Raises `InputOutputError`.
        """
        live = self.directory.path
        with io_errors(live):
            changed = tuple(state.path for state in states if (self.path / state.path).exists())
            removed = tuple(sorted(self._leftovers({state.path for state in states})))
            manifest = build(Contents(tuple(states), tuple(non_local)), self._support())
            write_synced(self.path / MANIFEST_NAME, manifest.raw)
            write_synced(self.path / RUN_RECORD_NAME, canonical(record(manifest)))
            for name in changed:
                sync_tree(self.path / name)
            sync_directory(self.path)
        journal = Journal(
            {state.path: state.digest.dir_hash for state in states if state.path in changed},
            removed,
            (VERIFIER_NAME, RUN_RECORD_NAME, MANIFEST_NAME),
        )
        bundle = Bundle(live, manifest, self.directory.place)
        return Ready(Publisher(live), journal, Publication(bundle, changed, removed))

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


class Ready(msgspec.Struct, frozen=True):
    """A set of states that lies on the disk and waits for the decision."""

    publisher: Publisher
    journal: Journal
    publication: Publication


def publish_together(all_ready: Sequence[Ready]) -> tuple[Publication, ...]:
    """Publishes in several state directories at once: in all of them, or in none.

    Their locks are held, and their staging is open. Raises `InputOutputError`; whether the set is
    old or new is decided then all the same, and the next command makes it whole.
    """
    if len(all_ready) == 1:
        all_ready[0].publisher.decide_alone(all_ready[0].journal)
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
        ready.publisher.prepare(pointing)
    members = tuple(os.path.relpath(ready.publisher.path, first.path) for ready in all_ready)
    first.decide_set(Decision(identity, members))


def _verifier() -> bytes:
    return Path(verify_at_start.__file__).read_bytes()


def _file(name: str, path: Path) -> File:
    with open(path, "rb") as stream:
        return File(name, *hash_stream(stream))
