"""JSON that a state consists of, as one value."""

from __future__ import annotations

import gc
from typing import Any

import msgspec


def decoded(raw: bytes) -> tuple[Any] | None:
    """What a JSON document holds, alone in a tuple; None if it is not JSON."""
    # The collector would walk over all that is made, again and again, and find nothing to free.
    collects = gc.isenabled()
    gc.disable()
    try:
        return (msgspec.json.decode(raw),)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    finally:
        if collects:
            gc.enable()
