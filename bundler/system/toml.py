"""Reads TOML with the standard library, which has that from Python 3.11 on."""

from __future__ import annotations

import sys

# Not from `typing`: the guard runs at every commit.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def loads(text: str) -> dict[str, Any]:
    """The tables of a TOML document. Raises `ValueError`."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
