"""Refuses a refresh that would remove more definitions than `max-removed` allows.

A connector that was deleted by mistake is a smaller state and no error: its assets vanish with
their schedules, and every check passes. So the code location is loaded with the states of the
baseline and with the new ones, and what each key no longer makes is counted. A definition that
another key makes now is not removed. Where a key has another name now, the state that it had
under the old one is what it is compared with. A key that has no component any more cannot be
loaded: without approval, it is not removed at all.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from bundler.errors import BadData, BundlerError, raise_all
from bundler.listener import Listener
from bundler.project.options import RefreshOptions, matches
from bundler.refresh.directories import Directory
from bundler.state.definitions import Definitions
from bundler.system import process
from bundler.system.wording import counted, listed

_SHOWN = 10


class Removal(msgspec.Struct, frozen=True):
    """What a key would make no longer, of one kind. limit: as configured, ``20%``; None for none.

    of: how many there were; 0 if the key has no component any more, and makes nothing. allowed:
    with ``--allow-removed``, though the limit is exceeded. place: of the state directory, for a
    plan.
    """

    key: str
    kind: str
    names: tuple[str, ...]
    of: int
    limit: str | None = None
    allowed: bool = False
    place: str = ""

    @property
    def exceeds(self) -> bool:
        is_more = not self.of or len(self.names) > _most(self.limit or "0", self.of)
        return self.limit is not None and is_more

    def is_allowed_by(self, patterns: Sequence[str]) -> bool:
        """With the key's name, or with the names of everything that is removed."""
        return any(matches(self.key, pattern) for pattern in patterns) or (
            bool(self.names)
            and all(any(matches(name, pattern) for pattern in patterns) for name in self.names)
        )

    def refusal(self) -> BadData:
        """Why the refresh is refused, with the names."""
        if not self.of:
            return BadData.of_key(
                self.key,
                "no component has this key any more, so everything that it defines "
                "would be removed.",
                hint="Check the component and the variables that its key is made of. If it is "
                f"intended, pass --allow-removed {shlex.quote(self.key)}.",
            )
        return BadData.of_key(
            self.key,
            f"{len(self.names)} of {self.of} {self.kind} would be removed, more than "
            f"max-removed = {self.limit} allows: {listed(self.names, _SHOWN)}.",
            hint="Check what the API returns. If it is intended, pass --allow-removed "
            f"{shlex.quote(self.key)}.",
        )


class ShrunkState(msgspec.Struct, frozen=True):
    """A state that a refresh refuses because it is much smaller than the baseline's."""

    key: str
    what: str
    hint: str

    def refusal(self) -> BadData:
        return BadData(self.what, hint=self.hint, key=self.key)


def removals(
    before: Definitions, after: Definitions, options: RefreshOptions
) -> tuple[Removal, ...]:
    """What each key would no longer make, compared with the options."""
    return tuple(
        removal
        for key in sorted(before.keys)
        for removal in _of_key(key, before.keys[key], after, options)
    )


def counterparts(before: Iterable[str], after: Iterable[str]) -> dict[str, str]:
    """For each key of now, the one of before whose state it is compared with.

    That is the same one or, where a class has one new key and lost one, that.
    """
    old, new = set(before), set(after)
    found = {key: key for key in old & new}
    for name in {_class_of(key) for key in new - old}:
        pair = [[key for key in keys if _class_of(key) == name] for keys in (old - new, new - old)]
        if [len(keys) for keys in pair] == [1, 1]:
            found[pair[1][0]] = pair[0][0]
    return found


def vanished(
    before: Iterable[str],
    after: Iterable[str],
    components: Iterable[str],
    options: RefreshOptions,
) -> tuple[Removal, ...]:
    """The removals of keys that have no component any more, under no other name either."""
    gone = {*before} - {*components} - {*counterparts(before, after).values()}
    removals = (Removal(key, "assets", (), 0, _any_limit(key, options)) for key in sorted(gone))
    return tuple(_judged(it, options) for it in removals)


def _judged(removal: Removal, options: RefreshOptions) -> Removal:
    is_allowed = removal.is_allowed_by(options.allow_removed)
    return msgspec.structs.replace(removal, allowed=is_allowed)


def _any_limit(key: str, options: RefreshOptions) -> str | None:
    """A limit of the key for any kind: a key without a component loses definitions of every
    kind."""
    limits = options.of_key(key).max_removed or {}
    return limits.get("assets", next(iter(limits.values()), None))


def counts_assets(before: Definitions, key: str, options: RefreshOptions) -> bool:
    """Whether a key's assets are limited and were counted with the state of the baseline.

    Otherwise nothing but the check for shrunk states protects them. A component that does not call
    Dagster's own ``build_defs`` is not counted, nor are assets that have no keys before resolution.
    """
    return options.of_key(key).limits_assets and bool(before.keys.get(key, {}).get("assets"))


def _class_of(key: str) -> str:
    return key.partition("[")[0]


def refused(found: Sequence[Removal]) -> list[BadData]:
    """One failure for each key and kind that exceeds its limit without approval."""
    return [removal.refusal() for removal in found if removal.exceeds and not removal.allowed]


def allowed_names(found: Sequence[Removal], key: str) -> tuple[str, ...]:
    """What was removed from a key beyond its limits, for the run record."""
    return tuple(
        name
        for removal in found
        if removal.key == key and removal.exceeds and removal.allowed
        for name in removal.names
    )


def allowed_keys(found: Sequence[Removal]) -> tuple[str, ...]:
    """The keys without a component that may be removed despite a limit, for the run record."""
    return tuple(it.key for it in found if not it.of and it.exceeds and it.allowed)


def _of_key(
    key: str, made: Mapping[str, list[str]], after: Definitions, options: RefreshOptions
) -> Iterator[Removal]:
    limits = options.of_key(key).max_removed or {}
    for kind, names in made.items():
        # The code may rename what a component makes: then no definition has that name.
        made_now = {name for kinds in after.keys.values() for name in kinds.get(kind, ())}
        gone = sorted({*names} - made_now - after.definitions.get(kind, {}).keys())
        if gone:
            removal = Removal(key, kind, tuple(gone), len({*names}), limits.get(kind))
            yield _judged(removal, options)


def _most(limit: str, before: int) -> int:
    if limit.endswith("%"):
        return int(before * float(limit[:-1]) / 100)
    return int(limit)


# --- the check of a refresh -------------------------------------------------------------------


async def refuse_removals(directories: Sequence[Directory], listener: Listener) -> None:
    """Raises `BadData` for each key that would lose more definitions than allowed."""
    failures: list[BundlerError] = []
    for directory in directories:
        before, compared, gone = await _compared(directory, listener)
        failures += refused((*gone, *compared))
        # What has shrunk is refused, unless its removed assets are limited and were counted.
        failures += [
            error
            for key, error in directory.shrunk.items()
            if not counts_assets(before, key, directory.options)
        ]
        _record_approved(directory, compared, gone, listener)
    raise_all(failures)


async def _compared(
    directory: Directory, listener: Listener
) -> tuple[Definitions, Sequence[Removal], Sequence[Removal]]:
    """What the states of the baseline define, as far as it was counted; what each key would no
    longer make; the keys that have no component any more, under no other name either."""
    nothing = Definitions({})
    sources = (item.source for item in directory.sources if item.source.kind == "dagster")
    project = next((source.project for source in sources), None)
    if project is None:
        return nothing, (), ()
    options, known = directory.options, directory.baselines
    pairs = counterparts(known, directory.states)
    gone = vanished(known, directory.states, directory.components, options)
    # Only where a state changes whose removals are limited.
    if not any(
        options.of_key(key).max_removed is not None
        and known[old].state.digest.dir_hash != directory.states[key].digest.dir_hash
        for key, old in pairs.items()
    ):
        return nothing, (), gone
    from bundler.refresh.definitions import describe_with

    listener.phase("Comparing definitions with those of the baseline")
    states = (
        {key: known[old].directory for key, old in pairs.items()},
        directory.key_directories(),
    )
    before, after = await process.in_thread(describe_with, project, states, options.inside)
    if before.error is not None:
        listener.warning(
            f"max-removed was not checked: {project.name} does not load with the states of the "
            f"baseline: {before.error}"
        )
        return nothing, (), gone
    if after.error is not None:
        raise BadData(
            f"{project.name} does not load with the new states: {after.error}",
            hint="It loads with those of the baseline: check what the API returns.",
        )
    return before, removals(before, after, options), gone


def _record_approved(
    directory: Directory,
    compared: Sequence[Removal],
    gone: Sequence[Removal],
    listener: Listener,
) -> None:
    """Records what is removed with approval, despite a limit."""
    directory.removed_keys = allowed_keys(gone)
    for key in directory.removed_keys:
        listener.warning(
            f"{key} is removed with everything that it defines, because --allow-removed allows it."
        )
    for key, refresh in directory.refreshes.items():
        if names := allowed_names(compared, key):
            directory.refreshes[key] = msgspec.structs.replace(refresh, removed=names)
            listener.warning(
                f"{key}: --allow-removed lets {counted(len(names), 'definition')} be removed."
            )
