"""Retries with stamina, which runs every attempt, including the first."""

from __future__ import annotations

import logging
from typing import Any

# Retries are reported to the listener; without a handler logging would write them to stderr.
logging.getLogger("stamina").addHandler(logging.NullHandler())


def attempts(**options: Any) -> Any:
    """`stamina.retry_context`, whose import takes longer than most commands have to start."""
    import stamina

    return stamina.retry_context(**options)
