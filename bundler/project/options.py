"""The options of a refresh, as values: the configuration and the command line fill them in.

Every duration is in seconds, every share a number between 0 and 1. A field without a value, or an
empty tuple where tuples add up, says nothing and leaves the decision to the next wider level:
the key's own options, then those for all keys, then the default written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from bundler.state.manifest import KeyRefresh, ManagementType, State

# always: ask the external system. missing: only for keys that have no state that verifies.
# never: use what is there; a key without state is an error.
RefreshMode = Literal["always", "missing", "never"]

DEFAULT_TIMEOUT_SECONDS = 300.0
DEFAULT_TOTAL_TIMEOUT_SECONDS = 1800.0
DEFAULT_ATTEMPTS = 3
DEFAULT_JOBS = 32
# A state with less than this share of the baseline's entries (or bytes) has shrunk.
DEFAULT_SHRINK = 0.5


# Options that are an argv: one goes before the other, they do not add up.
_COMMANDS = ("validate", "reach")


class KeyOptions(msgspec.Struct, frozen=True):
    """How one key is refreshed and judged.

    timeout: for all attempts of the key together. attempts: calls of ``write_state_to_path``.
    allow_empty: an empty state is as it should be. shrink: the share of the baseline's entries or
    bytes below which the state is refused; 0 turns the check off. min_entries: fewer are refused.
    max_removed: by kind of definition (``assets``), how many of a key's may be removed, as a count
    or a share (``5``, ``20%``).
    allow_http: failed requests that are expected, ``METHOD PATH STATUS`` with ``*`` wildcards,
    such as ``GET /v1/connectors/*/schemas 404``. exclude, include: patterns of paths to leave out
    of the state beyond the usual ones, and to keep in spite of them. allow_key_material: patterns
    of files that may hold private keys and tokens. volatile: names of JSON
    members that change at each run without meaning anything. writable: paths below the key
    directory that the program may write to. json_schema: a file that the state must satisfy.
    validate: a command (argv) that must succeed, with ``{state_path}`` replaced. reach: a command
    (argv) by which ``doctor`` finds out whether the external system answers these credentials.
    """

    refresh: RefreshMode | None = None
    timeout: float | None = None
    attempts: int | None = None
    allow_empty: bool | None = None
    shrink: float | None = None
    min_entries: int | None = None
    max_removed: Mapping[str, str] | None = None
    allow_http: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    allow_key_material: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    json_schema: Path | None = None
    validate: tuple[str, ...] = ()
    reach: tuple[str, ...] = ()

    def over(self, wider: KeyOptions) -> KeyOptions:
        """These options, with those of a wider level where they say nothing; tuples add up."""
        merged: dict[str, Any] = {}
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(wider, name)
            if isinstance(mine, tuple) and name not in _COMMANDS:
                merged[name] = (*theirs, *(item for item in mine if item not in theirs))
            else:
                merged[name] = theirs if mine in (None, ()) else mine
        return KeyOptions(**merged)


class StoredVersions(Protocol):
    """The versions that storage holds now; asked only where there is a key in versioned storage.

    embeds: their states come into the artifact; else the manifest only names the versions.
    """

    @property
    def embeds(self) -> bool: ...

    def state(self, key: str) -> tuple[State, KeyRefresh] | None:
        """The state as the manifest of an artifact that embeds it has it, and how it came about.

        None if the storage has none and that is allowed; else raises `UsageError`.
        """

    def pull(self, key: str, directory: Path) -> None:
        """Writes the state into an empty key directory."""


class Inside(msgspec.Struct, frozen=True):
    """An image that has the project: the refresh runs in it.

    network: as ``docker run`` takes it; None for its default. python: the interpreter in the image;
    None for the project's ``.venv`` in its working directory, else ``python``.
    """

    image: str
    network: str | None = None
    python: str | None = None


class RefreshOptions(msgspec.Struct, frozen=True):
    """How a run refreshes.

    mode: for every key, whatever its own options say; None leaves it to them. A project's file
    says it in defaults.
    keys, management_types: only these; empty means all. total_timeout: for the whole run.
    jobs: concurrent keys. kind_jobs: those of one kind of component, by a pattern of its class
    name. defaults: for every key. per_key: by key, or by a pattern of keys. over_all: what goes
    before a key's own options, since the command line says it. baseline: an artifact or a directory
    whose states new ones are compared with and may fall back to. allow_stale: the greatest age of
    a baseline that may replace an unavailable system; None never. allow_removed: keys, or names of
    definitions, to which `max_removed` does not apply. secrets, not_secrets: names of variables
    that are, or are not, secret, besides those whose name says so. stored: what
    becomes of keys in versioned storage; None leaves them out of the artifact without a version.
    inside: the image that the components run in; None for this machine. is_one_of_all: other
    projects are built with the same options, so a pattern may match no key here.
    """

    mode: RefreshMode | None = None
    keys: tuple[str, ...] = ()
    management_types: tuple[ManagementType, ...] = ()
    total_timeout: float | None = None
    jobs: int | None = None
    kind_jobs: Mapping[str, int] = msgspec.field(default_factory=dict)
    defaults: KeyOptions = KeyOptions()
    per_key: Mapping[str, KeyOptions] = msgspec.field(default_factory=dict)
    over_all: KeyOptions = KeyOptions()
    baseline: str | None = None
    allow_empty: tuple[str, ...] = ()
    allow_shrink: tuple[str, ...] = ()
    allow_removed: tuple[str, ...] = ()
    allow_stale: float | None = None
    secrets: tuple[str, ...] = ()
    not_secrets: tuple[str, ...] = ()
    stored: StoredVersions | None = None
    inside: Inside | None = None
    is_one_of_all: bool = False

    def over(self, wider: RefreshOptions) -> RefreshOptions:
        """These options (the command line's), with a project's where they say nothing."""
        merged: dict[str, Any] = {}
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(wider, name)
            if name in ("secrets", "not_secrets"):
                merged[name] = (*theirs, *mine)
            else:
                merged[name] = theirs if mine in (None, (), {}) else mine
        return RefreshOptions(
            **{
                **merged,
                "defaults": self.defaults.over(wider.defaults),
                "over_all": self.over_all.over(wider.over_all),
            }
        )

    def mode_of(self, key: str) -> RefreshMode:
        """Whether a key is refreshed."""
        return self.mode or self.of_key(key).refresh or "always"

    def of_key(self, key: str) -> KeyOptions:
        """What holds for a key: its own table, then the patterns that match it, then defaults."""
        options = self.per_key.get(key, KeyOptions())
        for pattern, wider in self.per_key.items():
            # Keys are full of brackets, so only the star is a wildcard.
            if pattern != key and "*" in pattern and matches(key, pattern):
                options = options.over(wider)
        if any(matches(key, pattern) for pattern in self.allow_empty):
            options = KeyOptions(allow_empty=True).over(options)
        if any(matches(key, pattern) for pattern in self.allow_shrink):
            options = KeyOptions(shrink=0.0).over(options)
        return self.over_all.over(options.over(self.defaults))


class SourceOptions(msgspec.Struct, frozen=True):
    """One ``[[tool.state-bundler.source]]``: where a state comes from in a program without Dagster.

    Exactly one of command (an argv; ``{state_path}`` and ``{previous_path}`` are replaced) and
    component (``package.module:Class``) is set. key: needed for a command; a component knows its
    own. path: the state directory, relative to the project. place: where the program looks for it,
    relative to the root from which its modules are imported; None derives it from path.
    """

    path: Path
    key: str | None = None
    command: tuple[str, ...] = ()
    component: str | None = None
    place: str | None = None


def matches(key: str, pattern: str) -> bool:
    """Whether a key is what the pattern says; only ``*`` is a wildcard, brackets are brackets."""
    return fnmatchcase(key, pattern.replace("[", "[[]"))
