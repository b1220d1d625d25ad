"""What a code location defines, and how two such descriptions differ.

`bundler.worker.definitions` makes the description: definitions by kind and name, each with those
fields that a reader would ask about. Nothing here knows Dagster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from bundler.worker.values import CONFIGURATION

# The order in which they are shown; unknown kinds come last.
KINDS = ("assets", "asset checks", "jobs", "schedules", "sensors", "resources", "settings")

Fields = Mapping[str, Any]

# A digest follows it that only the process that made it can compare: of a text with a secret.
REMOVED = " …removed "
_REMOVED = re.compile(rf"{REMOVED}#[0-9a-f]{{8}}$")

# They end in a digest of how Dagster writes the object, which differs between its versions; that of
# a text that was cut follows a `…`.
_WRITTEN_BY_DAGSTER = ("automation", "condition", "partitions")
_DIGEST = re.compile(r"(?<!…) #[0-9a-f]{8}$")


class Definitions(msgspec.Struct, frozen=True):
    """What one load of a code location defined.

    definitions: by kind and name. keys: the names of what each state-backed component defined, by
    defs state key and kind. states: by key, whether there was a state; None if it is not in the
    artifact. version: Dagster's. error: why the code location does not load.
    """

    definitions: dict[str, dict[str, dict[str, Any]]]
    keys: dict[str, dict[str, list[str]]] = {}
    states: dict[str, bool | None] = {}
    version: str = ""
    error: str | None = None

    @property
    def assets(self) -> Mapping[str, Fields]:
        return self.definitions.get("assets", {})

    def portable(self) -> Definitions:
        """Without what only the process that loaded it can compare."""
        kept = {
            kind: {
                name: {
                    field: _portable(it) for field, it in fields.items() if field != CONFIGURATION
                }
                for name, fields in found.items()
            }
            for kind, found in self.definitions.items()
        }
        return msgspec.structs.replace(self, definitions=kept)


class FieldChange(msgspec.Struct, frozen=True):
    """A field of a definition. added, removed: the items that differ, if it holds several."""

    name: str
    before: Any
    after: Any
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class DefinitionChange(msgspec.Struct, frozen=True):
    """A definition that appears, vanishes or changes."""

    kind: str
    name: str
    change: Literal["added", "removed", "changed"]
    fields: tuple[FieldChange, ...] = ()


class DefinitionsDifference(msgspec.Struct, frozen=True):
    """How two descriptions differ. unchanged: the number of definitions that are the same in
    both."""

    changes: tuple[DefinitionChange, ...] = ()
    unchanged: int = 0

    def counted(self, kind: str, change: str) -> int:
        return sum(item.kind == kind and item.change == change for item in self.changes)

    def kinds(self) -> list[str]:
        """The kinds of definitions that change, in display order."""
        found = dict.fromkeys(item.kind for item in self.changes)
        return sorted(found, key=lambda kind: KINDS.index(kind) if kind in KINDS else len(KINDS))


def merge(descriptions: Mapping[str, Definitions]) -> Definitions:
    """The description of several code locations, whose names qualify those of their definitions.

    descriptions: by the code location's name. error: of each that does not load.
    """
    if len(descriptions) == 1:
        return next(iter(descriptions.values()))
    merged: dict[str, dict[str, dict[str, Any]]] = {}
    for location, description in descriptions.items():
        for kind, found in description.definitions.items():
            named = {f"{location}: {name}": fields for name, fields in found.items()}
            merged.setdefault(kind, {}).update(named)
    return Definitions(
        merged,
        {key: names for it in descriptions.values() for key, names in it.keys.items()},
        {key: there for it in descriptions.values() for key, there in it.states.items()},
        ", ".join(sorted({it.version for it in descriptions.values()})),
        "; ".join(f"{name}: {it.error}" for name, it in descriptions.items() if it.error) or None,
    )


def compare(before: Definitions, after: Definitions) -> DefinitionsDifference:
    """What appears, vanishes and changes."""
    changes: list[DefinitionChange] = []
    unchanged = 0
    same_dagster = before.version == after.version
    for kind in {**before.definitions, **after.definitions}:
        old, new = before.definitions.get(kind, {}), after.definitions.get(kind, {})
        for name in sorted({**old, **new}):
            if name not in new:
                changes.append(DefinitionChange(kind, name, "removed"))
            elif name not in old:
                changes.append(DefinitionChange(kind, name, "added"))
            elif fields := tuple(_fields(old[name], new[name], same_dagster=same_dagster)):
                changes.append(DefinitionChange(kind, name, "changed", fields))
            else:
                unchanged += 1
    difference = DefinitionsDifference(tuple(changes), unchanged)
    order = difference.kinds()
    ordered = sorted(changes, key=lambda item: (order.index(item.kind), item.name))
    return msgspec.structs.replace(difference, changes=tuple(ordered))


def _fields(before: Fields, after: Fields, *, same_dagster: bool) -> Iterator[FieldChange]:
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        empty = type(new if old is None else old)
        if empty in (list, dict):  # a field that says nothing is left out
            old, new = (empty() if it is None else it for it in (old, new))
        is_written = name in _WRITTEN_BY_DAGSTER and not same_dagster
        if old == new or (is_written and _label(old) == _label(new)):
            continue
        if isinstance(old, list) and isinstance(new, list):
            added, removed = sorted({*new} - {*old}), sorted({*old} - {*new})
            yield FieldChange(name, old, new, tuple(added), tuple(removed))
        elif isinstance(old, dict) and isinstance(new, dict):
            one, other = ({f"{k}={v}" for k, v in tags.items()} for tags in (old, new))
            yield FieldChange(
                name, old, new, tuple(sorted(other - one)), tuple(sorted(one - other))
            )
        else:
            yield FieldChange(name, old, new)


def _portable(value: Any) -> Any:
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, dict):
        return {name: _portable(item) for name, item in value.items()}
    return _REMOVED.sub("", value) if isinstance(value, str) else value


def _label(value: Any) -> Any:
    return _DIGEST.sub("", value) if isinstance(value, str) else value
