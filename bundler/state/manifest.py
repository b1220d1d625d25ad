"""The manifest: what state an artifact holds. The run record: when, from where, how it got there.

The manifest is an in-toto Statement v1 in RFC 8785 canonical bytes. It holds no time, no commit
and no attempt, so that the same state is the same manifest and the same layer; all of those are
in the run record, which is next to the artifact's bytes (a label, a build property).

The format is specified in ``docs/reference/manifest.md``; `json_schema` gives its JSON schema.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from bundler.errors import ConfigurationError, VerificationFailed
from bundler.state.tree import File as File  # noqa: PLC0414  # a part of the manifest, too
from bundler.state.tree import Hex256, Size, StateTree, dir_hash
from bundler.system.times import seconds_of
from bundler.verify_at_start import (
    MAX_MANIFEST_BYTES as MAX_MANIFEST_BYTES,  # noqa: PLC0414  # a name of this module, too
)
from bundler.verify_at_start import (
    Known,
    keys_problem,
    others_problem,
    state_problem,
    support_problem,
)

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PredicateType = Literal["https://state-bundler.io/state-bundle/v1"]
PREDICATE_TYPE: PredicateType = "https://state-bundler.io/state-bundle/v1"
RUN_RECORD_TYPE = "https://state-bundler.io/run-record/v1"

_CONTENTS_DOMAIN = b"state-bundle-contents/v1\0"
_SUPPORT_DOMAIN = b"state-bundle-support/v1\0"

Commit = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{40}|[0-9a-f]{64})$")]
# RFC 3339, whole seconds, UTC.
Time = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", max_length=20)]

ManagementType = Literal[
    "LOCAL_FILESYSTEM", "VERSIONED_STATE_STORAGE", "LEGACY_CODE_SERVER_SNAPSHOTS"
]


class Model(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename="camel",
    omit_defaults=True,
):
    pass


class StateDigest(Model, frozen=True):
    """dir_hash covers every byte; semantic leaves out what changes at each run without meaning."""

    dir_hash: Hex256
    semantic: Hex256


class Deferral(Model, frozen=True):
    """The dbt manifest of another artifact that this state's dbt project defers to.

    path: below the key directory. state: the dirHash of the state that it was taken from.
    """

    path: str
    state: Hex256


class State(Model, frozen=True):
    """An embedded state: its key, its key directory, and every file in it.

    writable: paths below the key directory that the program may write to at run time. version: of a
    versioned key whose state was embedded so that the program can start without the store. defer:
    what its dbt project defers to.
    """

    key: str
    path: str
    digest: StateDigest
    files: tuple[File, ...]
    writable: tuple[str, ...] = ()
    version: str | None = None
    defer: Deferral | None = None

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class NonLocalKey(Model, frozen=True):
    """A key whose state is not in the artifact; version where it is pinned."""

    key: str
    management_type: ManagementType
    version: str | None = None


class Contents(Model, frozen=True):
    """What the content digest covers."""

    states: tuple[State, ...]
    non_local: tuple[NonLocalKey, ...] = ()


class DirHash(Model, frozen=True):
    """A digest set with in-toto's ``dirHash`` alone."""

    dir_hash: Hex256


class Predicate(Model, frozen=True):
    """What the statement says about its subjects.

    support: our files next to the states, ``.gitignore`` and ``@verify.py``. They have their own
    digest, so that another version of this tool, whose files differ, does not change the content
    digest of the same states.
    """

    contents: Contents
    content_digest: Hex256
    support: tuple[File, ...]
    support_digest: Hex256


class _StatementSubject(Model, frozen=True):
    name: str
    digest: DirHash


class _Statement(Model, frozen=True, tag_field="_type", tag=STATEMENT_TYPE):
    subject: tuple[_StatementSubject, ...]
    predicate_type: PredicateType
    predicate: Predicate


class Manifest(msgspec.Struct, frozen=True):
    """A manifest that was checked, with its canonical bytes."""

    predicate: Predicate
    raw: bytes

    @property
    def states(self) -> tuple[State, ...]:
        return self.predicate.contents.states

    @property
    def support(self) -> tuple[File, ...]:
        return self.predicate.support

    @property
    def content_digest(self) -> str:
        return self.predicate.content_digest

    @property
    def sha256(self) -> str:
        """The digest of the manifest's own bytes, repeated in the labels."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def size(self) -> int:
        return sum(state.size for state in self.states)

    @property
    def files(self) -> dict[str, File]:
        """Every file but the manifest itself, by its path in the state directory."""
        found = {file.path: file for file in self.support}
        for state in self.states:
            found.update((f"{state.path}/{file.path}", file) for file in state.files)
        return found

    @property
    def known(self) -> Known:
        """What may be in the state directory."""
        return Known(
            {path: (file.sha256, file.size) for path, file in self.files.items()},
            [f"{state.path}/{path}" for state in self.states for path in state.writable],
        )

    def claim(self, path: str) -> Claim:
        """What a label says of it in the state directory at this path."""
        return Claim(path, self.content_digest, self.sha256)

    def state(self, key: str) -> State | None:
        return next((state for state in self.states if state.key == key), None)


def state_of(
    key: str,
    path: str,
    tree: StateTree,
    *,
    semantic: str | None = None,
    writable: tuple[str, ...] = (),
) -> State:
    """The manifest's entry for a scanned key directory."""
    whole = tree.dir_hash
    return State(
        key=key,
        path=path,
        digest=StateDigest(dir_hash=whole, semantic=semantic or whole),
        files=tree.files,
        writable=tuple(sorted(writable)),
    )


def build(contents: Contents, support: tuple[File, ...] = ()) -> Manifest:
    """The manifest of these contents; states are sorted by key."""
    contents = Contents(
        states=tuple(sorted(contents.states, key=lambda state: state.key)),
        non_local=tuple(sorted(contents.non_local, key=lambda item: item.key)),
    )
    support = tuple(sorted(support, key=lambda file: file.path))
    predicate = Predicate(
        contents=contents,
        content_digest=content_digest(contents),
        support=support,
        support_digest=_digest(_SUPPORT_DOMAIN, support),
    )
    return Manifest(predicate, canonical(_statement(predicate)))


def _statement(predicate: Predicate) -> _Statement:
    return _Statement(
        subject=tuple(
            _StatementSubject(state.key, DirHash(state.digest.dir_hash))
            for state in predicate.contents.states
        ),
        predicate_type=PREDICATE_TYPE,
        predicate=predicate,
    )


def content_digest(contents: Contents) -> str:
    """sha256 over a domain tag and the canonical contents, in hexadecimal."""
    return _digest(_CONTENTS_DOMAIN, contents)


def _digest(domain: bytes, value: object) -> str:
    return hashlib.sha256(domain + canonical(value)).hexdigest()


def canonical(value: object) -> bytes:
    """RFC 8785 canonical JSON of a model. Raises `ConfigurationError` for what `decode_canonical`
    would refuse as too large."""
    if sys.version_info < (3, 11) and isinstance(value, msgspec.Struct):
        # There, an empty tuple of a generator is not `()`, so that msgspec would not omit it.
        value = msgspec.json.decode(msgspec.json.encode(value), type=type(value))
    raw = _dumped(value)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ConfigurationError(
            f"The list of the states' files is larger than {MAX_MANIFEST_BYTES} bytes.",
            hint="Leave out what the program does not need, with `exclude`, or pack the files.",
        )
    return raw


def _dumped(value: object) -> bytes:
    import rfc8785

    return rfc8785.dumps(msgspec.to_builtins(value))


_Decoded = TypeVar("_Decoded")


def decode_canonical(raw: bytes, model: type[_Decoded], what: str) -> _Decoded:
    """Decodes canonical JSON strictly.

    Anything that is not canonical (a duplicate or unknown key, a float, white space, another
    escape) is not encoded to the same bytes again, so one comparison rejects it. Raises
    `VerificationFailed` with `what` in the message.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise VerificationFailed(f"{what} is larger than {MAX_MANIFEST_BYTES} bytes.")
    try:
        value = msgspec.json.decode(raw, type=model, strict=True)
        again = _dumped(value)
    except (msgspec.DecodeError, UnicodeError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        newer = "If a newer version wrote it, update state-bundler." if "_type`" in reason else ""
        raise VerificationFailed(f"{what} cannot be read: {reason}.", hint=newer) from error
    if again != raw:
        raise VerificationFailed(f"{what} is not in canonical form, so it was altered.")
    return value


def parse(raw: bytes, what: str = "The manifest") -> Manifest:
    """Reads a manifest strictly: canonical bytes, consistent digests, safe paths.

    Raises `VerificationFailed` for everything else.
    """
    statement = decode_canonical(raw, _Statement, what)
    problem = _inconsistency(statement)
    if problem:
        raise VerificationFailed(f"{what} is inconsistent: {problem}.")
    return Manifest(statement.predicate, raw)


def _inconsistency(statement: _Statement) -> str | None:
    contents = statement.predicate.contents
    if statement.predicate.content_digest != content_digest(contents):
        return "its content digest does not match its contents"
    if statement != _statement(statement.predicate):
        return "its subjects do not match its states"
    if statement.predicate != build(contents, statement.predicate.support).predicate:
        return "its keys are not sorted, or the digest of its support files does not match"
    return (
        keys_problem([(state.key, state.path) for state in contents.states])
        or others_problem(
            [state.key for state in contents.states], [item.key for item in contents.non_local]
        )
        or next(filter(None, map(_state_problem, contents.states)), None)
        or support_problem([file.path for file in statement.predicate.support])
    )


def _state_problem(state: State) -> str | None:
    deferred = state.defer.path if state.defer else None
    problem = state_problem(
        state.key, [file.path for file in state.files], state.writable, deferred
    )
    if not problem and dir_hash(state.files) != state.digest.dir_hash:
        return f"the digest of {state.key!r} does not match its files"
    return problem


# --- the run record -------------------------------------------------------------------------


class Build(Model, frozen=True):
    """The code that the artifact was built from. remote is without credentials."""

    commit: Commit | None = None
    tree: Commit | None = None
    dirty: bool | None = None
    remote: str | None = None
    guarded: bool = False


class Dated(Model, frozen=True):
    """A record with times."""

    def __post_init__(self) -> None:
        """Raises `ValueError` for a time that no calendar has."""
        for name in ("fetched", "made", "confirmed"):
            if moment := getattr(self, name, None):
                seconds_of(moment)


class KeyRefresh(Dated, frozen=True):
    """How one state came about.

    fetched: when its bytes came from the external system. confirmed: when the external system was
    last asked and its answer meant the same. origin: "source" for a refresh, else what it was
    taken from. removed: the definitions that it removed beyond `max-removed`, with approval.
    deferred_from: the artifact whose dbt manifest it defers to.
    """

    key: str
    attempts: Size = 0
    stale: bool = False
    fetched: Time | None = None
    confirmed: Time | None = None
    origin: str = "source"
    environment_variables: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    deferred_from: str | None = None


class DirectoryRefresh(Model, frozen=True):
    """The refresh of one state directory; path as in the artifact, or in the project.

    content_digest: of the states that it speaks of, so that the record of other states shows.
    removed_keys: keys without a component that it removed despite `max-removed`, with approval.
    """

    path: str
    keys: tuple[KeyRefresh, ...]
    content_digest: Hex256 | None = None
    removed_keys: tuple[str, ...] = ()

    def of(self, manifest: Manifest) -> DirectoryRefresh:
        """This refresh, bound to the states that came of it."""
        return msgspec.structs.replace(self, content_digest=manifest.content_digest)


class Tool(Model, frozen=True):
    name: str
    version: str


ReadBack = Literal["every byte", "layer digest"]
EVERY_BYTE: ReadBack = "every byte"
LAYER_DIGEST: ReadBack = "layer digest"


class RunRecord(Model, frozen=True, tag_field="_type", tag=RUN_RECORD_TYPE):
    """How the states got into an artifact.

    read_back: what was compared before the artifact got its name: every byte of the states, or the
    digest that an engine or a registry had computed of their layer.
    """

    build: Build = Build()
    refresh: tuple[DirectoryRefresh, ...] = ()
    tool: Tool | None = None
    environment: str | None = None
    invocation: str | None = None
    read_back: ReadBack | None = None

    def moved(self, paths: Mapping[str, str]) -> RunRecord:
        """The record with other paths of state directories, such as those in an artifact."""
        refresh = tuple(
            msgspec.structs.replace(directory, path=paths.get(directory.path, directory.path))
            for directory in self.refresh
        )
        return msgspec.structs.replace(self, refresh=refresh)

    def key(self, path: str, key: str) -> KeyRefresh | None:
        """How the state of this key in this state directory came about."""
        there = (
            known
            for directory in self.refresh
            if directory.path == path
            for known in directory.keys
        )
        return next((known for known in there if known.key == key), None)


class Claim(Model, frozen=True):
    """What an artifact's label says of one state directory."""

    path: str
    content_digest: Hex256
    manifest: Hex256


def encode_claims(claims: Iterable[Claim]) -> bytes:
    """A JSON array, sorted by path."""
    return canonical(sorted(claims, key=lambda claim: claim.path))


def decode_claims(raw: bytes, name: str) -> tuple[Claim, ...]:
    """Decodes the claims. Raises `VerificationFailed` if they were altered. name: of the
    artifact."""
    try:
        return decode_canonical(raw, tuple[Claim, ...], f"The state label of {name}")
    except VerificationFailed as error:
        error.hint = error.hint or (
            "Only state-bundler writes this label. Remove it from the Dockerfile, if it is there, "
            "and build again."
        )
        raise


def decode_record(raw: bytes, name: str) -> RunRecord:
    """Decodes the record. Raises `VerificationFailed` if it was altered. name: of the artifact."""
    return decode_canonical(raw, RunRecord, f"The run record in {name}")


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of the manifest."""
    return msgspec.json.schema(_Statement)


# msgspec works a type out when it is first decoded, and two threads that do so concurrently have
# crashed it (seen with 0.22): so it happens here, while there is one.
for _model in (_Statement, RunRecord, tuple[Claim, ...]):
    msgspec.json.Decoder(_model)
