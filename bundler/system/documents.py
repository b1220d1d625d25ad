"""Decodes a state's JSON as one value."""

from __future__ import annotations

import gc
from typing import Any

import msgspec


def decoded(raw: bytes) -> tuple[Any] | None:
    """The value of a JSON document, in a tuple with one item; None if it is not JSON."""
    # The garbage collector would traverse all new objects again and again, and find nothing.
    collects = gc.isenabled()
    gc.disable()
    try:
        return (msgspec.json.decode(raw),)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    finally:
        if collects:
            gc.enable()
