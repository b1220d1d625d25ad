"""``typing.NamedTuple`` for modules that the guard loads at every commit.

Importing ``typing`` takes longer than git takes to answer. This class implements what values need:
fields by annotation, defaults, `_replace`, `_asdict`. Type checkers see the real one.
"""

from __future__ import annotations

from _operator import itemgetter  # `operator` re-exports it, and more

__all__ = ["NamedTuple"]

# Type checkers treat this name as true, without an import from `typing`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:

    class _Fields(type):
        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            fields = tuple(body.get("__annotations__", ()))
            body["_defaults"] = {field: body.pop(field) for field in fields if field in body}
            body["_fields"] = body["__match_args__"] = fields
            body.update((field, property(itemgetter(at))) for at, field in enumerate(fields))
            return super().__new__(cls, name, bases, {**body, "__slots__": ()})

    class NamedTuple(tuple, metaclass=_Fields):
        __slots__ = ()

        def __new__(cls, *values: object, **named: object) -> Any:
            if named or len(values) != len(cls._fields):
                given = {**cls._defaults, **dict(zip(cls._fields, values, strict=False)), **named}
                if len(given) != len(cls._fields) or len(values) > len(cls._fields):
                    raise TypeError(f"{cls.__name__} has the fields {', '.join(cls._fields)}")
                values = [given[field] for field in cls._fields]
            return super().__new__(cls, values)

        def _asdict(self) -> dict[str, object]:
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **changes: object) -> NamedTuple:
            return type(self)(**{**self._asdict(), **changes})

        def __repr__(self) -> str:
            shown = ", ".join(f"{field}={value!r}" for field, value in self._asdict().items())
            return f"{type(self).__name__}({shown})"
