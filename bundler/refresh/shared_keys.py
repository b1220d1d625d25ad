"""One component for each key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bundler.errors import ConfigurationError

if TYPE_CHECKING:
    from bundler.refresh.model import Component


def unique(components: Sequence[Component]) -> dict[str, Component]:
    """One component per key: those that share a key share its state, which is written once.

    Raises `ConfigurationError` if they differ in what the state is made of or where it is kept, or
    if a key was made of a variable that is not set.
    """
    by_key: dict[str, Component] = {}
    for component in components:
        _require_whole_key(component)
        first = by_key.setdefault(component.key, component)
        if first.management_type != component.management_type:
            raise ConfigurationError(
                f"Two components share the key {component.key!r}, one as {first.management_type} "
                f"and one as {component.management_type}.",
                hint="Give them the same management type, or different keys.",
                key=component.key,
            )
        if first.made_of != component.made_of:
            raise ConfigurationError(
                f"Two different components have the key {component.key!r}: {_where(first)} and "
                f"{_where(component)}. Both would be loaded with the same state.",
                hint="Give one of them its own key, in its attributes: "
                f"defs_state: {{management_type: {component.management_type}, key: ANOTHER}}",
                key=component.key,
            )
    return by_key


def _require_whole_key(component: Component) -> None:
    """Refuses a key that an unset variable is part of: the variable becomes ``None`` or empty."""
    found = re.fullmatch(r"[^\[]*\[(.*)\]", component.key, re.DOTALL)
    if found is None:
        return
    unset, inside = ", ".join(component.unset_variables), found[1]
    parts = re.split(r"[\s,;:/|@=&]+", inside)
    if "None" not in parts and not (unset and "" in parts):
        return
    what = f"{unset} is not set" if unset else "a value in it is None"
    raise ConfigurationError(
        f"The key {component.key!r} ({_where(component)}) is incomplete: {what}.",
        hint=f"Set {unset} in the environment or in .env." if unset else "Set that value.",
        key=component.key,
    )


def _where(component: Component) -> str:
    at = f":{component.line}" if component.line else ""
    return f"{component.location}{at}" if component.location else component.kind
