"""``STATE_BUNDLER_…``: a variable for each setting of ``[tool.state-bundler]``.

A list is written with commas, or as in TOML; a command as for a shell; a table as in TOML. An empty
variable counts as unset.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, get_origin

import msgspec

from bundler.errors import ConfigurationError
from bundler.project.settings_docs import ROOT
from bundler.system import toml
from bundler.system.wording import nearest

PREFIX = "STATE_BUNDLER_"
# Other modules use these.
OTHERS = (
    *("DEMO_BASE", "DEVELOPMENT", "DOCKER", "EMBEDDED", "INSECURE_REGISTRIES", "ONE_OF_ALL"),
    *("NO_CACHE", "PYTHON"),
)
_COMMANDS = ("validate", "reach")
# The only setting in another table.
_GUARD_ALLOW = "guard-allow"
_TYPES = re.compile(r"`([^`]+)`")
_WORDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "object": "a table",
    "str": "text",
}


def given(environ: Mapping[str, str], model: type[msgspec.Struct]) -> dict[str, Any]:
    """The settings from environment variables, by name.

    model: the table that they belong to. Raises `ConfigurationError` for an unknown variable, and
    for an invalid value.
    """
    types = {field.encode_name: field.type for field in msgspec.structs.fields(model)}
    types[_GUARD_ALLOW] = msgspec.structs.fields(types.pop("guard"))[0].type
    settings = {_variable(name): name for name in types}
    found: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable.removeprefix(PREFIX) in OTHERS:
            continue
        if variable not in settings:
            raise _unknown(variable, list(settings))
        if text:
            name = settings[variable]
            found[name] = _value(variable, text, name, types[name])
    if _GUARD_ALLOW in found:
        found["guard"] = {"allow": found.pop(_GUARD_ALLOW)}
    return found


def _variable(name: str) -> str:
    return PREFIX + name.upper().replace("-", "_")


def _unknown(variable: str, known: list[str]) -> ConfigurationError:
    near = nearest(variable, [*known, *(PREFIX + name for name in OTHERS)])
    return ConfigurationError(
        f"No setting has the environment variable {variable}.",
        hint=f"Did you mean {near}?" if near else f"Known: {', '.join(sorted(known))}.",
    )


def _value(variable: str, text: str, name: str, kind: Any) -> Any:
    value: Any = text
    if name in _COMMANDS:
        value = _words(variable, text)
    elif get_origin(kind) is tuple:
        value = _items(variable, text)
    elif get_origin(kind) is dict or text.lstrip().startswith("{"):
        value = _as_toml(variable, text)
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _bad(variable, text, readable(str(error)), name) from error
    return value


def readable(reason: str) -> str:
    """msgspec's message in TOML's words, without the place."""
    if "matching regex" in reason:
        return "expected a number and a unit, such as 30s, 5m, 24h, 7d"
    reason = reason.partition(" - at ")[0].replace(" | null", "")
    reason = reason.replace("Object missing required field", "there is no")
    reason = reason.replace("Invalid enum value", "unknown value")
    return reason[:1].lower() + _TYPES.sub(lambda found: _named(found[1]), reason[1:])


def _named(types: str) -> str:
    return " or ".join(_WORDS.get(name, repr(name)) for name in types.split(" | "))


def _words(variable: str, text: str) -> list[str]:
    if text.lstrip().startswith("["):
        return _items(variable, text)
    try:
        return shlex.split(text)
    except ValueError as error:
        raise _bad(variable, text, str(error).lower()) from error


def _items(variable: str, text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        value = _as_toml(variable, text)
        return value if isinstance(value, list) else [value]
    return [item for part in text.split(",") if (item := part.strip())]


def _as_toml(variable: str, text: str) -> Any:
    try:
        return toml.loads(f"value = {text}")["value"]
    except ValueError as error:
        raise _bad(variable, text, "it is not a TOML value") from error


def _bad(variable: str, text: str, reason: str, name: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"{variable}={text!r}: {reason}.",
        hint=f"Correct or unset it. {ROOT.get(name, '')}".rstrip(),
    )
