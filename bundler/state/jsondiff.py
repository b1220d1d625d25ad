"""What changed inside a JSON document, in the words of the document.

A *collection* is a list of objects with an identity (``id``, ``name`` and the like), or an object
whose members are objects of one shape, by their identity. The items of a collection are matched
by identity, so that one more connector is one more, whatever its position. An item whose name alone
changed is *renamed*. Everything else is compared member by member.

Members that are *volatile*, such as ``generated_at``, are compared too, but reported separately.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

Kind = Literal["added", "removed", "renamed", "changed", "reordered"]

_NAMES = ("name", "display_name", "displayName", "title", "full_name", "label", "table_name")
_IDENTITIES = ("unique_id", "id", "uid", "uuid", "guid", "urn", "key", "slug", *_NAMES, "path")
_SHOWN = 60
SAMPLE = 20
_TEXT_LINES = 500
_SHOWN_LINES = 6


class JsonChange(msgspec.Struct, frozen=True):
    """One thing that changed.

    what: the collection that it belongs to, such as ``connectors``; empty for a plain member.
    name: of the item, or the member. before, after: as short text, where there is such. details:
    what changed inside an item.
    """

    kind: Kind
    name: str
    what: str = ""
    before: str | None = None
    after: str | None = None
    volatile: bool = False
    details: tuple[JsonChange, ...] = ()


class Counts(msgspec.Struct):
    """How many items of a collection were added, removed, renamed, changed."""

    added: int = 0
    removed: int = 0
    renamed: int = 0
    changed: int = 0


def compare(
    before: Any, after: Any, volatile: frozenset[str] = frozenset()
) -> tuple[JsonChange, ...]:
    """All differences between two decoded documents; empty for equal ones."""
    return tuple(_Comparison(volatile).of(before, after, "", ""))


def counts(changes: Sequence[JsonChange]) -> dict[str, Counts]:
    """By collection, including nested ones; volatile changes do not count."""
    total: dict[str, Counts] = {}
    for change in _with_details(changes):
        if change.what and not change.volatile and change.kind != "reordered":
            of_kind = total.setdefault(change.what, Counts())
            setattr(of_kind, change.kind, getattr(of_kind, change.kind) + 1)
    return total


def _with_details(changes: Sequence[JsonChange]) -> Iterator[JsonChange]:
    for change in changes:
        yield change
        yield from _with_details(change.details)


def summary(changes: Sequence[JsonChange]) -> str:
    """The counts in a line, such as ``+3 connectors, -1 table, 1 connector renamed``."""
    parts = []
    for what, found in counts(changes).items():
        for sign, number in (("+", found.added), ("-", found.removed)):
            if number:
                parts.append(f"{sign}{_amount(number, what)}")
        for word, number in (("renamed", found.renamed), ("changed", found.changed)):
            if number:
                parts.append(f"{_amount(number, what)} {word}")
    plain = sum(not change.what and not change.volatile for change in changes)
    if plain:
        parts.append(f"{_amount(plain, 'members')} changed")
    # A collection may have any name, and this is one line of a table.
    return ", ".join(parts).replace("\n", "\\n")


def _amount(number: int, what: str) -> str:
    if number == 1:
        singular = what[:-3] + "y" if what.endswith("ies") else what.removesuffix("s")
        return f"1 {singular}"
    return f"{number} {what}"


def _identical(before: Any, after: Any) -> bool:
    """Equal, and of the same type at every depth: `==`, which is fast, treats 1, 1.0 and true as
    equal."""
    if before != after:
        return False
    return isinstance(before, str) or _encoded(before) == _encoded(after)


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


class _Comparison(msgspec.Struct):
    volatile: frozenset[str]

    def of(self, before: Any, after: Any, path: str, what: str) -> Iterator[JsonChange]:
        """path: of the value in the document; what: the name of its items if it is a collection."""
        if _identical(before, after):
            return
        if isinstance(before, dict) and isinstance(after, dict):
            if is_collection(before, after, what):
                yield from self._items(before, after, what or "entries", None)
            else:
                yield from self._members(before, after, path)
        elif isinstance(before, list) and isinstance(after, list):
            yield from self._lists(before, after, path, what or "entries")
        else:
            details = tuple(_changed_lines(before, after))
            yield JsonChange("changed", path, "", *_both(before, after), details=details)

    def _members(
        self, before: Mapping[str, Any], after: Mapping[str, Any], path: str
    ) -> Iterator[JsonChange]:
        for name in {**before, **after}:
            below = f"{path}.{name}" if path else name
            volatile = name in self.volatile
            if name not in after:
                yield JsonChange("removed", below, before=short(before[name]), volatile=volatile)
            elif name not in before:
                yield JsonChange("added", below, after=short(after[name]), volatile=volatile)
            elif volatile:
                if not _identical(before[name], after[name]):
                    told = _both(before[name], after[name])
                    yield JsonChange("changed", below, "", *told, volatile=True)
            else:
                yield from self.of(before[name], after[name], below, _collection_name(name))

    def _lists(
        self, before: list[Any], after: list[Any], path: str, what: str
    ) -> Iterator[JsonChange]:
        identity = _identity(before, after)
        if identity is not None:
            items = [{item[identity]: item for item in side} for side in (before, after)]
            yield from self._items(items[0], items[1], what, identity)
            common = [key for key in items[0] if key in items[1]]
            if common != [key for key in items[1] if key in items[0]]:
                yield JsonChange("reordered", what)
            return
        gone, new = _leftovers(before, after)
        if not gone and not new:
            yield JsonChange("reordered", path or what)
        elif len(gone) == len(new) and all(isinstance(item, dict) for item in (*gone, *new)):
            for number, (one, other) in enumerate(zip(gone, new, strict=True), 1):
                details = tuple(self.of(one, other, "", ""))
                yield _item("changed", f"#{number}", what, details)
        else:
            yield from (JsonChange("removed", _label(item), what) for item in gone)
            yield from (JsonChange("added", _label(item), what) for item in new)

    def _items(
        self, before: Mapping[Any, Any], after: Mapping[Any, Any], what: str, identity: str | None
    ) -> Iterator[JsonChange]:
        gone = {key: item for key, item in before.items() if key not in after}
        new = {key: item for key, item in after.items() if key not in before}
        for old, now in self._renamed(gone, new, identity):
            label = _label(gone.pop(old), old)
            yield JsonChange("renamed", label, what, label, _label(new.pop(now), now))
        yield from (JsonChange("removed", _label(item, key), what) for key, item in gone.items())
        yield from (JsonChange("added", _label(item, key), what) for key, item in new.items())
        for key, item in before.items():
            if key in after and not _identical(item, after[key]):
                yield self._changed_item(key, item, after[key], what)

    def _changed_item(self, key: Any, before: Any, after: Any, what: str) -> JsonChange:
        name = next((n for n in _NAMES if _differ(before, after, n)), None)
        if name is None or name in self.volatile:
            return _item("changed", _label(after, key), what, tuple(self.of(before, after, "", "")))
        one, other = ({n: v for n, v in item.items() if n != name} for item in (before, after))
        details = tuple(self.of(one, other, "", ""))
        was = str(before[name])
        return JsonChange("renamed", was, what, was, str(after[name]), details=details)

    def _renamed(
        self, gone: Mapping[Any, Any], new: Mapping[Any, Any], identity: str | None
    ) -> list[tuple[Any, Any]]:
        """Items that are the same except for the identity by which they are matched."""
        left: dict[bytes, list[Any]] = {}
        for key, item in gone.items():
            if isinstance(item, dict):
                left.setdefault(self._without_identity(item, key, identity), []).append(key)
        pairs = []
        for key, item in new.items():
            if isinstance(item, dict):
                same = left.get(self._without_identity(item, key, identity))
                if same:
                    pairs.append((same.pop(0), key))
        return pairs

    def _without_identity(self, item: Mapping[str, Any], key: Any, identity: str | None) -> bytes:
        rest = {
            name: value
            for name, value in item.items()
            if name != identity
            and name not in self.volatile
            and not (name in _IDENTITIES and value == key)
        }
        # An item without any other member could be any of them: it was not renamed.
        return _encoded(rest) if rest else _encoded(["", str(key)])


def _changed_lines(before: Any, after: Any) -> Iterator[JsonChange]:
    """The first lines that only one of two texts has, such as a model's SQL."""
    if not isinstance(before, str) or not isinstance(after, str) or "\n" not in before + after:
        return
    import difflib
    import itertools

    old, new = before.splitlines()[:_TEXT_LINES], after.splitlines()[:_TEXT_LINES]
    lines = itertools.islice(difflib.unified_diff(old, new, lineterm="", n=0), 2, None)
    changed = (line for line in lines if not line.startswith("@@"))
    for line in itertools.islice(changed, _SHOWN_LINES):
        yield JsonChange("added" if line.startswith("+") else "removed", line[1:].strip())


def _item(kind: Kind, name: str, what: str, details: tuple[JsonChange, ...]) -> JsonChange:
    volatile = bool(details) and all(change.volatile for change in details)
    return JsonChange(kind, name, what, volatile=volatile, details=details)


def _differ(before: Any, after: Any, name: str) -> bool:
    if not isinstance(before, dict) or not isinstance(after, dict):
        return False
    one, other = before.get(name), after.get(name)
    return isinstance(one, str) and isinstance(other, str) and one != other


def is_collection(before: Mapping[str, Any], after: Mapping[str, Any], what: str) -> bool:
    """Whether an object's members are items of one shape, keyed by their identity."""
    values = [*before.values(), *after.values()]
    if not values or not all(map(_is_record, values)):
        return False
    shapes = [frozenset(value) for value in [*values[:SAMPLE], *values[-SAMPLE:]]]
    common = frozenset.intersection(*shapes)
    if 2 * len(common) < max(map(len, shapes)):
        return False
    # A single member is a collection only if a name says so.
    several = len({*before, *after}) > 1
    items = (*before.items(), *after.items())
    return several or what.endswith("s") or any(key in item.values() for key, item in items)


def _is_record(value: Any) -> bool:
    """Whether an object has plain values, and not only nested objects."""
    return isinstance(value, dict) and not all(isinstance(item, dict) for item in value.values())


def _identity(before: Sequence[Any], after: Sequence[Any]) -> str | None:
    """The member that identifies the items of both lists."""
    items = [*before, *after]
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    names: list[str] = [name for name in items[0] if name.endswith(("_id", "Id"))]
    for name in (*_IDENTITIES, *names):
        if all(isinstance(item.get(name), (str, int)) for item in items):
            sides = ([item[name] for item in side] for side in (before, after))
            if all(len(set(side)) == len(side) for side in sides):
                return name
    return None


def _leftovers(before: Sequence[Any], after: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """What only one of two lists holds, however often and in whatever order."""
    old, new = (Counter(map(_encoded, side)) for side in (before, after))
    return _take(before, old - new), _take(after, new - old)


def _take(items: Sequence[Any], wanted: Counter[bytes]) -> list[Any]:
    found = []
    for item in items:
        code = _encoded(item)
        if wanted[code] > 0:
            wanted[code] -= 1
            found.append(item)
    return found


def _label(item: Any, key: Any = None) -> str:
    """The name of an item for the user."""
    if not isinstance(item, dict):
        return short(item) if key is None else str(key)
    name = next((item[name] for name in _NAMES if isinstance(item.get(name), str)), None)
    if key is None:
        return str(name) if name is not None else short(item)
    return f"{name} ({key})" if name is not None and name != key else str(key)


def _collection_name(member: str) -> str:
    for ending in ("_by_id", "ById", "_by_name", "ByName", "_by_unique_id"):
        member = member.removesuffix(ending)
    return member


def short(value: Any) -> str:
    """A value as text that fits on a line."""
    return _cut(_text(value), _SHOWN)


def apart(before: str, after: str, most: int) -> tuple[str, str]:
    """Two texts cut to a length, without so much of their common beginning that they look alike."""
    start = 0
    if max(len(before), len(after)) > most:
        same = os.path.commonprefix([before, after])  # noqa: RUF071  # of characters is meant
        start = max(0, len(same) - most // 4)
    one, other = (f"…{it[start:]}" if start else it for it in (before, after))
    return _cut(one, most), _cut(other, most)


def _both(before: Any, after: Any) -> tuple[str, str]:
    return apart(_text(before), _text(after), _SHOWN)


def _text(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:
        return f"{value.count(chr(10)) + 1} lines"
    if isinstance(value, dict):
        return f"{{{len(value)} members}}" if value else "{}"
    if isinstance(value, list) and len(value) > 1:
        return f"[{len(value)} items]"
    return msgspec.json.encode(value).decode()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
