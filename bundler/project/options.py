"""The options of a refresh, from the configuration and the command line.

Every duration is in seconds, every share a number between 0 and 1. An unset field, or an empty
tuple where tuples add up, leaves the decision to the next wider level: the key's own options, then
those for all keys, then the default here.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from bundler.state.manifest import KeyRefresh, ManagementType, State

# always: ask the external system. missing: only for keys without a valid state.
RefreshMode = Literal["always", "missing", "never"]

DEFAULT_TIMEOUT_SECONDS = 300.0
DEFAULT_TOTAL_TIMEOUT_SECONDS = 1800.0
DEFAULT_ATTEMPTS = 3
DEFAULT_JOBS = 32
# A state with less than this share of the baseline's entries (or bytes) has shrunk.
DEFAULT_SHRINK = 0.5


# Options that are an argv: one overrides the other, they do not add up.
_COMMANDS = ("validate", "reach")


class KeyOptions(msgspec.Struct, frozen=True):
    """How to refresh and judge one key.

    timeout: for all attempts of the key together. attempts: the maximum number of calls of
    ``write_state_to_path``. allow_empty: whether an empty state is accepted. shrink: the share of
    the baseline's entries or bytes below which the state is refused; 0 turns the check off.
    min_entries: fewer are refused. max_removed: by kind of definition (``assets``), how many of a
    key's may be removed, as a count or a share (``5``, ``20%``). allow_http: failed requests that
    are expected, ``METHOD PATH STATUS`` with ``*`` wildcards, such as ``GET
    /v1/connectors/*/schemas 404``. exclude, include: patterns of paths to leave out of the state in
    addition to the usual ones, and to keep anyway. allow_key_material: patterns of files that may
    contain private keys and tokens. volatile: names of JSON members that change at each run without
    a change in meaning. writable: paths below the key directory that the program may write to.
    json_schema: a file with a schema for the state. validate: a command (argv) that must succeed,
    with ``{state_path}`` replaced. reach: a command (argv) with which ``doctor`` checks that the
    external system accepts the credentials.
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

    @property
    def limits_assets(self) -> bool:
        """Whether ``max-removed`` has a limit for assets, not only for other definitions."""
        return "assets" in (self.max_removed or {})

    def over(self, wider: KeyOptions) -> KeyOptions:
        """These options, completed by those of a wider level; tuples add up."""
        merged: dict[str, Any] = {}
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(wider, name)
            if isinstance(mine, tuple) and name not in _COMMANDS:
                merged[name] = (*theirs, *(item for item in mine if item not in theirs))
            else:
                merged[name] = theirs if mine in (None, ()) else mine
        return KeyOptions(**merged)


class StoredVersions(Protocol):
    """The versions that storage has now; only asked if there is a key in versioned storage.

    embeds: whether their states are embedded; otherwise the manifest only names the versions.
    """

    @property
    def embeds(self) -> bool: ...

    def state(self, key: str) -> tuple[State, KeyRefresh] | None:
        """The state as a manifest lists it when embedded, and how it was made.

        None if the storage has none and that is allowed; else raises `UsageError`.
        """

    def pull(self, key: str, directory: Path) -> None:
        """Writes the state into an empty key directory."""


class Inside(msgspec.Struct, frozen=True):
    """An image that contains the project; the refresh runs in it.

    network: as ``docker run`` accepts it; None for its default. python: the interpreter in the
    image; None for the project's ``.venv`` in its working directory, else ``python``.
    """

    image: str
    network: str | None = None
    python: str | None = None


class RefreshOptions(msgspec.Struct, frozen=True):
    """How a run refreshes.

    mode: for every key, overriding its own options; None leaves it to them. A project's file sets
    it in defaults. keys, management_types: only these; empty means all. total_timeout: for the
    whole run. jobs: concurrent keys. kind_jobs: those of one kind of component, by a pattern of its
    class name. defaults: for every key. per_key: by key, or by a pattern of keys. over_all:
    overrides a key's own options, for the command line. baseline: an artifact or a directory whose
    states new ones are compared with and may be replaced by. allow_stale: the maximum age of a
    baseline that may replace an unavailable system; None for never. allow_removed: keys, or names
    of definitions, to which `max_removed` does not apply. secrets, not_secrets: names of variables
    that are, or are not, secret, in addition to those whose name says so. stored: what to do with
    keys in versioned storage; None leaves them out of the artifact without a version. inside: the
    image that the components run in; None for this machine. is_one_of_all: whether other projects
    are built with the same options, so that a pattern may match no key here.
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
        """These options (the command line's), completed by a project's."""
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
        """Whether, and when, to refresh a key."""
        return self.mode or self.of_key(key).refresh or "always"

    def of_key(self, key: str) -> KeyOptions:
        """The options of a key: its own table, then the patterns that match it, then defaults."""
        options = self.per_key.get(key, KeyOptions())
        for pattern, wider in self.per_key.items():
            # Keys contain brackets, so only the star is a wildcard.
            if pattern != key and "*" in pattern and matches(key, pattern):
                options = options.over(wider)
        if any(matches(key, pattern) for pattern in self.allow_empty):
            options = KeyOptions(allow_empty=True).over(options)
        if any(matches(key, pattern) for pattern in self.allow_shrink):
            options = KeyOptions(shrink=0.0).over(options)
        return self.over_all.over(options.over(self.defaults))


class SourceOptions(msgspec.Struct, frozen=True):
    """One ``[[tool.state-bundler.source]]``: the origin of a state in a program without Dagster.

    Exactly one of command (an argv; ``{state_path}`` and ``{previous_path}`` are replaced) and
    component (``package.module:Class``) is set. key: needed for a command; a component has its own.
    path: the state directory, relative to the project. place: where the program looks for it,
    relative to the root from which its modules are imported; None derives it from path.
    """

    path: Path
    key: str | None = None
    command: tuple[str, ...] = ()
    component: str | None = None
    place: str | None = None


def matches(key: str, pattern: str) -> bool:
    """Whether a pattern matches a key; only ``*`` is a wildcard, brackets are literal."""
    return fnmatchcase(key, pattern.replace("[", "[[]"))
