"""The values in a store, in RFC 8785 canonical JSON, parsed as strictly as a manifest."""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from bundler.errors import VerificationFailed
from bundler.state.manifest import (
    Commit,
    Contents,
    Dated,
    KeyRefresh,
    Model,
    State,
    Time,
    build,
    canonical,
    decode_canonical,
    parse,
)
from bundler.state.tree import Hex256, Size

FORMAT_NAME = "store.json"
POINTER_NAME = "current.json"
FORMAT_TYPE = "https://state-bundler.io/store/v1"

_TYPES = "https://state-bundler.io/store"
_CONTENT_NAME = re.compile(r"^content/[0-9a-f]{64}\.[0-9a-f]{8}$")
# The hexadecimal digits that identify a push; the other eight number its versions.
_PUSH_DIGITS = 24

Uuid = Annotated[
    str, msgspec.Meta(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
]
Action = Literal["push", "rollback", "import", "copy", "join", "remove"]


class Format(Dated, frozen=True, tag_field="_type", tag=FORMAT_TYPE):
    """Marks a folder or a prefix as a store."""

    made: Time


class Version(Dated, frozen=True):
    """One state of one key.

    objects: those that contain its files. at: for each file of the state, in order, the index of
    its object and the offset in it. place: the state directory that it was pushed from. by: who
    pushed. commit: of the code that was checked out. refresh: how the state was made.
    """

    version: Uuid
    key: str
    state: State
    objects: tuple[str, ...]
    at: tuple[tuple[Size, Size], ...]
    made: Time
    by: str = ""
    commit: Commit | None = None
    place: str | None = None
    refresh: KeyRefresh | None = None


class Batch(Model, frozen=True, tag_field="_type", tag=f"{_TYPES}-versions/v1"):
    """The versions of one push."""

    versions: tuple[Version, ...]


class Entry(Dated, frozen=True):
    """The pointer's entry for a key.

    since: the number of the set that gave the key this version. semantic: the state's digest, by
    which an unchanged state is recognised without reading anything else. confirmed: when the
    external system last returned the same meaning.
    """

    version: Uuid
    since: Size
    semantic: Hex256
    size: Size
    made: Time
    confirmed: Time | None = None


class Move(Model, frozen=True):
    """A key's change from one version to another; None for no version."""

    key: str
    before: Uuid | None = None
    after: Uuid | None = None


class Change(Dated, frozen=True, tag_field="_type", tag=f"{_TYPES}-set/v1"):
    """A set by its difference from the previous one. number: counts from 1; id: its writer's."""

    number: Size
    id: Uuid
    made: Time
    action: Action
    moves: tuple[Move, ...]
    by: str = ""
    commit: Commit | None = None
    note: str = ""


class Pin(Model, frozen=True):
    """A version that is kept, and why."""

    version: Uuid
    key: str
    note: str = ""


class Current(Model, frozen=True, tag_field="_type", tag=f"{_TYPES}-current/v1"):
    """The pointer.

    change: the newest set. keys: their current versions. pins: never pruned. retired: being pruned
    at this moment, so not to be used again. oldest: the number of the oldest set that is kept.
    labels: Dagster's notes for keys whose state is elsewhere (``__local__``, ``__code_server__``),
    which are no versions.
    """

    change: Change
    keys: dict[str, Entry]
    pins: tuple[Pin, ...] = ()
    retired: tuple[Uuid, ...] = ()
    oldest: Size = 1
    labels: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def number(self) -> int:
        return self.change.number


class Shard(Model, frozen=True, tag_field="_type", tag=f"{_TYPES}-shard/v1"):
    """What one shard of a refresh has pushed.

    unchanged: keys that kept this version. refreshes: when their systems were asked.
    """

    index: Size
    count: Size
    versions: tuple[Uuid, ...]
    unchanged: dict[str, Uuid] = msgspec.field(default_factory=dict)
    refreshes: tuple[KeyRefresh, ...] = ()


class Joined(Dated, frozen=True, tag_field="_type", tag=f"{_TYPES}-joined/v1"):
    """The result of joining a run's shards: their set, and when it was made."""

    count: Size
    number: Size
    made: Time
    versions: tuple[Uuid, ...]


def new_push() -> str:
    """The beginning of the UUIDs of a push's versions."""
    return uuid.uuid4().hex[:_PUSH_DIGITS]


def version_id(push: str, number: int) -> str:
    """The UUID of a push's version with this number."""
    return str(uuid.UUID(hex=f"{push}{number:08x}"))


def batch_name(version: str) -> str:
    """The object that holds a version. Raises `VerificationFailed` if it is not a UUID."""
    if not is_version(version):
        raise VerificationFailed(f"{version!r} is not a version: it is not a UUID.")
    return f"versions/{uuid.UUID(version).hex[:_PUSH_DIGITS]}.json"


def batches(versions: Iterable[Version]) -> dict[str, Batch]:
    """The versions by the object that holds them."""
    found: dict[str, tuple[Version, ...]] = {}
    for version in versions:
        name = batch_name(version.version)
        found[name] = (*found.get(name, ()), version)
    return {name: Batch(members) for name, members in found.items()}


def is_version(text: str) -> bool:
    """Whether a text is a version's UUID."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def set_name(number: int) -> str:
    """The object that holds a set."""
    return f"sets/{number:012d}.json"


def encode(value: Model) -> bytes:
    return canonical(value)


@functools.lru_cache(maxsize=2)  # a push reads the pointer twice, and usually it is the same
def read_current(raw: bytes, where: str) -> Current:
    return decode_canonical(raw, Current, f"{where}/{POINTER_NAME}")


def read_batch(raw: bytes, name: str, where: str) -> Batch:
    """Raises `VerificationFailed` if a version's entry contradicts itself."""
    batch = decode_canonical(raw, Batch, f"{where}/{name}")
    for version in batch.versions:
        problem = _problem(version, name)
        if problem:
            raise VerificationFailed(f"{where}/{name}: {version.version} {problem}.")
    return batch


def _problem(version: Version, name: str) -> str | None:
    if batch_name(version.version) != name:
        return "does not belong there"
    if version.state.key != version.key or len(version.at) != len(version.state.files):
        return "was not computed from its state's files"
    if not all(map(_CONTENT_NAME.match, version.objects)):
        return "names an object without content"
    if any(index >= len(version.objects) for index, _ in version.at):
        return "places a file in an object that it does not list"
    try:
        parse(build(Contents((version.state,))).raw)
    except VerificationFailed as error:
        return f"is inconsistent: {error.what}"
    return None


# msgspec prepares a type at its first use, and crashes if two threads do so concurrently.
for _model in (Format, Batch, Current, Change, Joined, Shard, KeyRefresh):
    msgspec.json.Decoder(_model)
parse(build(Contents(())).raw)
