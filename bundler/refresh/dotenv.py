"""``.env`` files, as python-dotenv (and with it ``dg``) reads them.

A line is ``NAME=value``, perhaps after ``export``; single quotes keep a value as it is, double
quotes know escapes, both may go over several lines; elsewhere a ``#`` after white space begins a
comment. ``${NAME}`` and ``${NAME:-default}`` are replaced everywhere, in single quotes too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bundler.errors import ConfigurationError

# Patterns are compiled where they are first used: most projects have no such file.
_LINE = r"""(?xms)^[^\S\n]*(?:export[^\S\n]+)?
    (?P<name>[A-Za-z_][\w.]*)[^\S\n]*=[^\S\n]*
    (?:'(?P<single>(?:[^'\\]|\\.)*)'
      |"(?P<double>(?:[^"\\]|\\.)*)"
      |(?P<bare>[^\n]*?)(?=[^\S\n]+\#|[^\S\n]*$))
    [^\S\n]*(?:\#[^\n]*)?$"""
_REFERENCE = r"\$\{(?P<name>[^}:]+)(?::-(?P<default>[^}]*))?\}"
_ESCAPE = r"(?s)\\(.)"
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}


def read(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a file sets; none where there is no file.

    environment: what references are looked up in, after the file itself.
    Raises `ConfigurationError` where the file cannot be read.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{path} cannot be read: {reason}.") from error
    values: dict[str, str] = {}
    for found in re.finditer(_LINE, text.replace("\r\n", "\n")):
        values[found["name"]] = _value(found, {**environment, **values})
    return values


def _value(found: re.Match[str], known: Mapping[str, str]) -> str:
    if found["single"] is not None:
        value = re.sub(r"\\(['\\])", r"\1", found["single"])
    elif found["double"] is not None:
        value = re.sub(_ESCAPE, lambda found: _ESCAPES.get(found[1], found[1]), found["double"])
    else:
        value = found["bare"]
    return re.sub(_REFERENCE, lambda found: known.get(found[1], found[2] or ""), value)
