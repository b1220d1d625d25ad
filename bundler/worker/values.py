"""Values of definitions as texts: the same in each load, and without what may be secret.

The first part of the program of `bundler.worker.definitions`.
"""

from __future__ import annotations

import enum
import hashlib
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Of values that may be secret there is only a digest, which differs from process to process.
CONFIGURATION = "configuration"
# Of what follows it in a text only a digest is shown.
DIGESTED = "\x1f"
_MOST_TEXT = 100_000
# What a path follows in a text that is not a longer path or an address.
_BEFORE_A_PATH = r"(?:(?<![^\s\"'`(\[{<=,:;|@])|(?<=file://)|(?<=:///))"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_CODE_METADATA = ("dagster/code_references", "dagster/component_origin")
_CONTAINERS = (dict, list, tuple, set, frozenset)
_HAS_MEMBERS = re.compile(r"\{[^}]")
_LIKE_ANOTHER = re.compile(r"-?[\d.]+|True|False|None")
_FOLDERS: dict[str, re.Pattern[str]] = {}
_salt = ""


def salt_digests(salt: str) -> None:
    """Salts the digests of values that may be secret: only the request can compare them."""
    global _salt  # noqa: PLW0603  # one request a process
    _salt = salt


def leave_out(folder: object) -> None:
    """Leaves the path of a folder out of all texts: it is another one in each load."""
    path = str(folder).rstrip("/")
    if path:
        _FOLDERS[path] = re.compile(rf"{_BEFORE_A_PATH}{re.escape(path)}(?![\w-]|\.\w)")


def if_any(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something: most definitions have few of them."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def key_of(key: Any) -> str:
    """As Dagster shows it. A slash in a part of the key is escaped: a/b is not [a, b]."""
    return str(getattr(key, "to_escaped_user_string", key.to_user_string)())


def keys_of(keys: Any) -> list[str]:
    return sorted(map(key_of, keys))


def texts_of(values: Any, name_of: Callable[[Any], str] = str) -> dict[str, str | None]:
    return {name_of(name): text_of(value) for name, value in values.items()}


def metadata_of(metadata: Any) -> dict[str, str | None]:
    """Without paths of code, which are other ones on each machine, and without the objects of
    integrations: Dagster does not show them either."""
    found = {name: value for name, value in metadata.items() if name not in _CODE_METADATA}
    plain = {name: _unwrapped(value) for name, value in found.items() if _is_plain(value)}
    return dict(sorted((name, _shown(value)) for name, value in plain.items()))


def _shown(value: Any) -> str | None:
    """In quotes if it is a text that reads like another value: 5 is a number, and "5" is not."""
    is_like_another = isinstance(value, str) and _LIKE_ANOTHER.fullmatch(value)
    return text_of(f'"{value}"' if is_like_another else value)


def _unwrapped(value: Any) -> Any:
    is_wrapped = type(value).__name__.endswith("MetadataValue")
    return getattr(value, "value", value) if is_wrapped else value


def _is_plain(value: Any) -> bool:
    """Text, and what Python and Dagster have classes for, unless that says only where it is."""
    if isinstance(value, (str, enum.Enum)):
        return True
    module = type(value).__module__.partition(".")[0]
    is_shown = module == "dagster" or module in sys.stdlib_module_names
    return is_shown and address_free(value)


def address_free(value: Any) -> bool:
    return not _ADDRESS.search(repr(value))


def automation_of(condition: Any) -> str | None:
    """The label, and a digest of the rest: a condition can change and keep its label."""
    if condition is None:
        return None
    text = repr(condition)
    if _ADDRESS.search(text):  # of a class that does not show its attributes
        text += repr([vars(it) for it in _with_children(condition) if hasattr(it, "__dict__")])
    text = stable(text)
    return _bounded(f"{condition.get_label() or text}{DIGESTED}{text}")


def _with_children(condition: Any) -> list[Any]:
    return [condition, *(it for child in condition.children for it in _with_children(child))]


def partitions_of(partitions: Any) -> str | None:
    """As Dagster describes them; that leaves out the name of dynamic ones and formats of times."""
    text = text_of(partitions)
    is_listed = type(partitions).__name__ == "StaticPartitionsDefinition"
    if text is None or is_listed:
        return text
    return _bounded(f"{text}{DIGESTED}{stable(repr(partitions))}")


def text_of(value: Any) -> str | None:
    if value is None:
        return None
    is_container = isinstance(value, _CONTAINERS) and type(value).__str__ is object.__str__
    return _bounded(stable(written(value) if is_container else str(value)))


def written(value: Any) -> str:
    """As Python writes it, but with the members of each dictionary and set in order: an API may
    return them in any."""
    as_it_is = repr(value)
    if not isinstance(value, _CONTAINERS) or not _HAS_MEMBERS.search(as_it_is):
        return as_it_is
    fields: Any = getattr(value, "_fields", None)  # of Dagster's records, too
    if isinstance(value, dict):
        members = sorted(f"{written(name)}: {written(it)}" for name, it in value.items())
        text = f"{{{', '.join(members)}}}"
    elif isinstance(value, (set, frozenset)):
        members = sorted(map(written, value))
        text = f"{as_it_is.partition('{')[0]}{{{', '.join(members)}}}{as_it_is.rpartition('}')[2]}"
    elif fields is not None:
        named = (f"{name}={written(getattr(value, name))}" for name in fields)
        text = f"{type(value).__name__}({', '.join(named)})"
    else:
        last = as_it_is[-2:] if as_it_is.endswith(",)") else as_it_is[-1]
        text = as_it_is[0] + ", ".join(map(written, value)) + last
    # A class may write itself in another way, and say more.
    is_own = type(value) not in _CONTAINERS
    return as_it_is if is_own and sorted(text) != sorted(as_it_is) else text


def secret_digest(value: Any) -> str | None:
    """A digest that only the request that salted it can compare: a value may be a credential."""
    return None if value is None else digest(f"{_salt}{stable(written(value))}")


def digest(value: Any) -> str:
    """A short digest of a text, or of how another value is written."""
    text = value if isinstance(value, str) else stable(written(value))
    return f"#{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"


def stable(text: str) -> str:
    """Text without what is another one at each load: addresses, and the folder of the states."""
    for folder in sorted(_FOLDERS, key=len, reverse=True):
        text = _FOLDERS[folder].sub("…", text)
    return _ADDRESS.sub("", text)


def _bounded(text: str) -> str:
    """The whole text: secrets are removed from it by its reader, who then cuts it."""
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}… {digest(text)}"
