"""Defs state keys: one component for each, and none that contains a credential.

Keys appear in manifests, labels, logs and names of directories.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

import msgspec

from bundler.errors import ConfigurationError, CredentialsRefused
from bundler.project.config import Config
from bundler.project.options import matches
from bundler.refresh.model import Component, Found
from bundler.refresh.secrets import Secrets
from bundler.system.url_credentials import has_credentials, without_credentials
from bundler.system.wording import listed, nearest

_MOST_KNOWN = 10


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
                hint="Give one of them its own key: in [[tool.state-bundler.source]], or, in a "
                "component's attributes, "
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


def withheld(found: Found, secrets: Secrets) -> Found:
    """What was found, with each key as it may be shown; such a component says why its key is
    refused."""
    components = tuple(_judged(component, secrets) for component in found.components)
    warnings = list(found.warnings)
    for before, after in zip(found.components, components, strict=True):
        if before.key != after.key:
            warnings = [text.replace(before.key, after.key) for text in warnings]
    return msgspec.structs.replace(found, components=components, warnings=tuple(warnings))


def _judged(component: Component, secrets: Secrets) -> Component:
    key = component.key
    secret = secrets.within(key)
    shown = without_credentials(key)
    if shown != key:
        is_certain = has_credentials(key)
        error: ConfigurationError | CredentialsRefused = (
            CredentialsRefused if is_certain else ConfigurationError
        )(
            f"The defs state key {_shown(shown, secrets)!r} contains the credentials of a URL.",
            hint="Keys appear in manifests, logs and directory names. Remove the credentials "
            "from the URL, or give the component a fixed key (`defs_state: {key: …}`); dagster-dbt "
            'accepts a separate token: token: "{{ env.GIT_TOKEN }}".',
        )
    elif secret is not None:
        error = CredentialsRefused(
            f"The defs state key {_shown(shown, secrets)!r} contains {secret.what}.",
            hint="Give the component a fixed key (`defs_state: {key: …}`), or, if that is "
            f'not a secret, set not-secrets = ["{secret.variable}"].',
        )
    else:
        return component
    warning = component.warning.replace(key, _shown(shown, secrets))
    return msgspec.structs.replace(
        component, key=_shown(shown, secrets), refused=error, warning=warning
    )


def _shown(key: str, secrets: Secrets) -> str:
    secret = secrets.within(key)
    return key if secret is None or secret.variable in secrets.settings else secrets.redact(key)


def nearest_key(given: str, known: Collection[str]) -> str:
    """The key that the user may have meant, or the list of keys."""
    if near := nearest(given, known):
        return f"Did you mean {near!r}?"
    return f"Known: {listed(sorted(known), _MOST_KNOWN)}."


def unused_tables(config: Config, known: Collection[str]) -> Iterator[str]:
    """The settings of one key that apply to none, as messages. known: the keys of the project."""
    for key in config.refresh.per_key:
        if known and not any(matches(one, key) for one in known):
            yield (
                f'{config.file}: [tool.state-bundler.keys."{key}"] has no effect, because no '
                f"component has such a key. {nearest_key(key, known)}"
            )
