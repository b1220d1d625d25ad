"""Retries with stamina, which runs every attempt, including the first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")

# Retries are reported to the listener; without a handler logging would write them to stderr.
logging.getLogger("stamina").addHandler(logging.NullHandler())


def attempts(**options: Any) -> Any:
    """`stamina.retry_context`, whose import takes longer than most commands have to start."""
    import stamina

    return stamina.retry_context(**options)


def retried(on: Callable[[Exception], bool | float], work: Callable[[], _T], **limits: Any) -> _T:
    """The result of the work, which is repeated while `on` says so of its exception; a number is
    how many seconds to wait before that. Raises the last exception."""
    import stamina

    return stamina.RetryingCaller(**limits)(on, work)
