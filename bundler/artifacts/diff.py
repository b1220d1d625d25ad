"""What changed between the states of two artifacts, key by key, inside JSON too.

Keys are matched by name, wherever their state directories are. In artifacts of several projects,
they are matched together with their directory's path. By the manifests' digests alone it is known
which keys and which files differ; only those files are read.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec

from bundler.artifacts.verify import without_state
from bundler.errors import VerificationFailed
from bundler.state.artifact import Artifact, StateDirectory, read_settled
from bundler.state.bundle import MANIFEST_NAME, is_at
from bundler.state.jsondiff import JsonChange, compare, summary
from bundler.state.manifest import Contents, Manifest, State, build, parse, state_of
from bundler.state.tree import File, StateTree, dir_hash, hash_file, hash_stream
from bundler.state.volatile import DBT_FILES, DBT_MEMBERS, FIVETRAN_MEMBERS, Volatile, meaning
from bundler.system.atomic import io_errors
from bundler.system.documents import MOST_BYTES, read_document

Kind = Literal["added", "removed", "changed", "volatile"]

_DBT_PARSED = "project/*target/manifest.json"
_BRIEF = ("state", "project/target/manifest.json")
# In dbt's manifest: what users call the resources, by the member that lists them.
_DBT_LISTS = ("nodes", "sources", "exposures", "metrics", "semantic_models", "saved_queries")
_DBT_MEANING = (
    *("name", "raw_code", "raw_sql", "columns", "description", "tags", "config", "depends_on"),
    *("schema", "database", "alias", "identifier", "meta", "constraints"),
)


class FileDifference(msgspec.Struct, frozen=True, rename="camel"):
    """A file of a state.

    changes: what differs inside, if that is known. Sizes in bytes, None if the file does not exist.
    form_only: the same JSON, formatted differently.
    """

    path: str
    kind: Kind
    before: int | None
    after: int | None
    changes: tuple[JsonChange, ...] = ()
    form_only: bool = False


class KeyDifference(msgspec.Struct, frozen=True):
    """A key.

    volatile: whether its bytes differ without a difference in meaning. before, after: sizes in
    bytes, or the pinned versions of a state that is not in the artifact.
    """

    key: str
    kind: Kind
    before: int | str | None
    after: int | str | None
    files: tuple[FileDifference, ...] = ()

    @property
    def summary(self) -> str:
        """The counts of all changes in one line; empty if nothing could be counted."""
        return summary([change for file in self.files for change in file.changes])


class Difference(msgspec.Struct, frozen=True):
    """before, after: the artifacts' names. unchanged: the number of keys that are the same in
    both."""

    before: str
    after: str
    keys: tuple[KeyDifference, ...]
    unchanged: int

    @property
    def differs(self) -> bool:
        """Whether there is any difference in meaning."""
        return any(key.kind != "volatile" for key in self.keys)

    def of(self, key: str, directory: str) -> KeyDifference | None:
        """The difference of a key in one of the later artifact's state directories."""
        names = (key, name_in(key, directory))
        return next((found for found in self.keys if found.key in names), None)


def diff(
    before: Artifact,
    after: Artifact,
    volatile: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> Difference:
    """Compares two open artifacts.

    volatile: additional names of members to ignore. only: the state directories of the earlier one
    that are compared; None for all. Raises `VerificationFailed` if a manifest is
    malformed, or a file does not match it.
    """

    def compare() -> Difference:
        with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
            folders = [Path(name) / side for side in ("before", "after")]
            for folder in folders:
                folder.mkdir()
            sides = (_Side(before, folders[0], only), _Side(after, folders[1]))
            return _compared(*sides, frozenset(volatile))

    return read_settled(before, lambda: read_settled(after, compare))


def _compared(one: _Side, other: _Side, volatile: frozenset[str]) -> Difference:
    one.take_names_of(other)
    wanted = {
        key: _documents(one.states[key].value, other.states[key].value)
        for key in one.states
        if key in other.states and _changed(one.states[key].value, other.states[key].value)
    }
    for side in (one, other):
        side.read(wanted)
    keys = [_of_key(key, one, other, volatile) for key in sorted({**one.states, **other.states})]
    keys += _non_local(one.non_local, other.non_local)
    found = tuple(key for key in keys if key is not None)
    shared = len(one.states.keys() & other.states.keys()) + len(
        one.non_local.keys() & other.non_local.keys()
    )
    both = sum(key.kind in ("changed", "volatile") for key in found)
    return Difference(one.artifact.name, other.artifact.name, found, shared - both)


def brief(before: Path, after: Path, volatile: Collection[str] = ()) -> str:
    """What changed between two key directories, in one line.

    volatile: names of members to ignore. Compares the ``state`` file or, for dbt, the manifest in
    it. Empty if nothing can be counted: not JSON, too large, or unreadable.
    """
    for name in _BRIEF:
        with suppress(OSError):
            if (before / name).stat().st_size:
                found = _inside(before / name, after / name, frozenset(volatile))
                return summary(found or ())
    return ""


def _changed(before: State, after: State) -> bool:
    return before.digest.dir_hash != after.digest.dir_hash


# --- reading --------------------------------------------------------------------------------


_Value = TypeVar("_Value")


class _KeyValue(msgspec.Struct, Generic[_Value], frozen=True):
    """A key in a state directory. value: its state or, if that is not in the artifact, the pinned
    version, else the management type."""

    directory: str
    key: str
    value: _Value


class _Side(msgspec.Struct):
    """One of the two artifacts: its states by key, and copies of the files to compare."""

    artifact: Artifact
    folder: Path
    only: Collection[str] | None = None
    states: dict[str, _KeyValue[State]] = msgspec.field(default_factory=dict)
    non_local: dict[str, _KeyValue[str]] = msgspec.field(default_factory=dict)
    paths: tuple[str, ...] = ()
    contents: dict[tuple[str, str], Path] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        manifests = {
            directory.path: manifest_of(directory, self.artifact.name)
            for directory in self._directories()
        }
        if not manifests:
            raise without_state(self.artifact.name)
        self.paths = tuple(manifests)
        self.states = _named(
            [
                _KeyValue(path, state.key, state)
                for path, it in manifests.items()
                for state in it.states
            ]
        )
        self.non_local = _named(
            [
                _KeyValue(path, item.key, item.version or item.management_type)
                for path, manifest in manifests.items()
                for item in manifest.predicate.contents.non_local
            ]
        )

    def _directories(self) -> list[StateDirectory]:
        found = self.artifact.state_directories()
        return [item for item in found if self.only is None or item.path in self.only]

    def take_names_of(self, other: _Side) -> None:
        self.states = self._renamed(self.states, other.states, other)
        self.non_local = self._renamed(self.non_local, other.non_local, other)

    def _renamed(
        self,
        ours: Mapping[str, _KeyValue[_Value]],
        theirs: Mapping[str, _KeyValue[_Value]],
        other: _Side,
    ) -> dict[str, _KeyValue[_Value]]:
        """Our keys, named as theirs where these are the same project's, and only there."""
        found: dict[str, _KeyValue[_Value]] = {}
        for name, here in ours.items():
            same = [
                its
                for its, there in theirs.items()
                if here.key == there.key and _are_same(here.directory, there.directory)
            ]
            if len(same) == 1 and same[0] not in found:
                found[same[0]] = here
            elif name in theirs and (
                _is_among(here.directory, other.paths)
                or _is_among(theirs[name].directory, self.paths)
            ):
                found[name_in(here.key, here.directory)] = here
            else:
                found[name] = here
        return found

    def read(self, wanted: Mapping[str, Sequence[str]]) -> None:
        """Reads files by key, in one pass over each state directory."""
        for directory in self._directories():
            files = {
                f"{located.value.path}/{path}": (key, path)
                for key, located in self.states.items()
                if located.directory == directory.path
                for path in wanted.get(key, ())
            }
            if files:
                self._read(directory, files)

    def _read(self, directory: StateDirectory, files: Mapping[str, tuple[str, str]]) -> None:
        for member in directory.members():
            if member.path in files and member.kind == "file":
                key, path = files[member.path]
                copy = self.folder / f"{len(self.contents)}.json"
                with io_errors(copy):
                    with member.open() as stream, copy.open("xb") as target:
                        shutil.copyfileobj(stream, target)
                    digest, _ = hash_file(copy)
                if all(f.sha256 != digest for f in self.states[key].value.files if f.path == path):
                    raise VerificationFailed(
                        f"{self.artifact.name}: {directory.path}/{member.path} was altered."
                    )
                self.contents[key, path] = copy


def _named(keys: Sequence[_KeyValue[_Value]]) -> dict[str, _KeyValue[_Value]]:
    names = [it.key for it in keys]
    return {
        it.key if names.count(it.key) == 1 else name_in(it.key, it.directory): it for it in keys
    }


def _are_same(one: str, other: str) -> bool:
    """Whether two paths are those of one project: one ends with the other, as in an image."""
    return is_at(one, other) or is_at(other, one)


def _is_among(path: str, others: Sequence[str]) -> bool:
    return any(_are_same(path, other) for other in others)


def name_in(key: str, path: str) -> str:
    """The name of a key that an artifact has in several state directories."""
    return f"{key} in {path}"


def manifest_of(directory: StateDirectory, name: str) -> Manifest:
    """The manifest; if only Dagster wrote to the directory, one that is computed from its files."""
    raw = directory.read_manifest()
    if raw is not None:
        return parse(raw, f"{name}: {directory.path}/{MANIFEST_NAME}")
    trees: dict[str, list[File]] = {}
    for member in directory.members():
        folder, slash, path = member.path.partition("/")
        if slash and not folder.startswith("@") and member.kind == "file":
            with member.open() as stream:
                sha256, size = hash_stream(stream)
            trees.setdefault(folder, []).append(File(path, sha256, size))
    states = (state_of(name, name, StateTree(tuple(files))) for name, files in trees.items())
    return build(Contents(tuple(states)))


def _documents(before: State, after: State) -> list[str]:
    """The files to compare inside: those that exist in both, differ, and may be JSON."""
    old = {file.path: file for file in before.files}
    return [
        file.path
        for file in after.files
        if file.path in old
        and old[file.path].sha256 != file.sha256
        and max(file.size, old[file.path].size) <= MOST_BYTES
        and (file.path.rpartition("/")[2] == "state" or file.path.endswith(".json"))
    ]


# --- comparing ------------------------------------------------------------------------------


class _Ignored(msgspec.Struct, frozen=True):
    """What changes without meaning: names of members, and patterns of files."""

    members: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()


def _of_key(key: str, one: _Side, other: _Side, volatile: frozenset[str]) -> KeyDifference | None:
    if key not in other.states:
        return KeyDifference(key, "removed", one.states[key].value.size, None)
    if key not in one.states:
        return KeyDifference(key, "added", None, other.states[key].value.size)
    before, after = one.states[key].value, other.states[key].value
    if not _changed(before, after):
        return None
    known = [
        _known(side.states[key].value, side.contents.get((key, "state"))) for side in (one, other)
    ]
    ignored = _Ignored(volatile.union(*(it.members for it in known)), max(it.files for it in known))
    same = before.digest.semantic == after.digest.semantic
    files = tuple(_files(key, one, other, ignored))
    means_nothing = same or all(file.kind == "volatile" for file in files)
    if means_nothing and not same and all(map(_has_volatile, (before, after))) and not volatile:
        # What changed is volatile in states of another kind only.
        means_nothing, files = False, tuple(_files(key, one, other, _Ignored()))
    kind: Kind = "volatile" if means_nothing else "changed"
    return KeyDifference(key, kind, before.size, after.size, files)


def _has_volatile(state: State) -> bool:
    return state.digest.semantic != state.digest.dir_hash


def _known(state: State, document: Path | None) -> _Ignored:
    """What is volatile in states of this kind, which a state does not name.

    dbt's is recognised by its files; in another one, the names are those that give its digest.
    document: a copy of its ``state``.
    """
    if not _has_volatile(state):
        return _Ignored()
    dbt = _Ignored(frozenset(DBT_MEMBERS), DBT_FILES)
    if any(fnmatchcase(file.path, _DBT_PARSED) for file in state.files):
        return dbt
    if len(state.files) == 1 and document is not None:
        for ignored in (_Ignored(frozenset(FIVETRAN_MEMBERS)), dbt):
            digest = meaning(document, state.files[0].sha256, Volatile(ignored.members))
            if dir_hash([File("state", digest, 0)]) == state.digest.semantic:
                return ignored
    return _Ignored()


def _files(key: str, one: _Side, other: _Side, ignored: _Ignored) -> Iterator[FileDifference]:
    before = {file.path: file for file in one.states[key].value.files}
    after = {file.path: file for file in other.states[key].value.files}
    for path in sorted({**before, **after}):
        old, new = before.get(path), after.get(path)
        if old is None:
            yield FileDifference(path, "added", None, after[path].size)
        elif new is None:
            yield FileDifference(path, "removed", old.size, None)
        elif old.sha256 != new.sha256:
            inside = _inside(
                one.contents.get((key, path)), other.contents.get((key, path)), ignored.members
            )
            kind: Kind = "volatile" if _means_nothing(path, inside, ignored) else "changed"
            form_only = inside == ()
            yield FileDifference(path, kind, old.size, new.size, inside or (), form_only)


def _means_nothing(path: str, changes: tuple[JsonChange, ...] | None, ignored: _Ignored) -> bool:
    if any(fnmatchcase(path, pattern) for pattern in ignored.files):
        return True
    return bool(changes) and all(change.volatile for change in changes or ())


def _inside(
    before: Path | None, after: Path | None, volatile: frozenset[str]
) -> tuple[JsonChange, ...] | None:
    """What changed inside a file that is JSON on both sides; else, or nested too deeply, None."""
    old, new = (None if path is None else read_document(path) for path in (before, after))
    if old is None or new is None:
        return None
    with suppress(RecursionError):
        if _is_dbt(old[0]) and _is_dbt(new[0]):
            found = compare(_resources(old[0]), _resources(new[0]), volatile)
            if not all(change.volatile for change in found):
                return found
        return compare(old[0], new[0], volatile)
    return None


def _is_dbt(document: Any) -> bool:
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        return False
    return "manifest" in str(document["metadata"].get("dbt_schema_version", ""))


def _resources(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A dbt manifest's models, sources, tests and so on, reduced to what the user wrote."""
    found: dict[str, dict[str, Any]] = {}
    for section in _DBT_LISTS:
        resources = document.get(section)
        for name, resource in resources.items() if isinstance(resources, dict) else ():
            kind = f"{resource.get('resource_type', section.removesuffix('s'))}s"
            meaning = {item: resource[item] for item in _DBT_MEANING if item in resource}
            meaning["depends_on"] = (resource.get("depends_on") or {}).get("nodes")
            found.setdefault(kind, {})[name] = meaning
    return found


def _non_local(
    before: Mapping[str, _KeyValue[str]], after: Mapping[str, _KeyValue[str]]
) -> Iterator[KeyDifference]:
    for key in sorted({**before, **after}):
        old, new = (side[key].value if key in side else None for side in (before, after))
        if old != new:
            kind: Kind = "added" if old is None else "removed" if new is None else "changed"
            yield KeyDifference(key, kind, old, new)
