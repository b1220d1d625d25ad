"""Watches a component's own code: the variables that it reads, and where it raised.

This runs in the project's interpreter, so it only imports the standard library.
"""

from __future__ import annotations

import os
import sys

# `typing` takes longer than everything else here: only the names of types need it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any


def tell_environment(root: str, report: Callable[..., None]) -> None:
    """From now on, reports which environment variables the project's own code reads by name.

    Copying the whole environment, for example to start a program, reads no name.
    """
    kind = type(os.environ)
    original, listing = kind.__getitem__, kind.__iter__
    told: set[str] = set()
    listed: list[Any] = []  # names that a listing returned and that were not read yet, last first

    def watched_listing(environment: Any) -> Iterator[Any]:
        names = list(listing(environment))
        listed[:] = reversed(names)
        return iter(names)

    def watched(environment: Any, name: Any) -> Any:
        if listed and listed[-1] == name:
            listed.pop()
        elif isinstance(name, str) and name not in told and _asks(sys._getframe(), root):  # noqa: SLF001  # `inspect` costs
            told.add(name)
            report("environment", name=name)
        return original(environment, name)

    kind.__getitem__ = watched  # type: ignore[method-assign]  # for the rest of this process
    kind.__iter__ = watched_listing  # type: ignore[method-assign]  # likewise


def _asks(frame: FrameType | None, root: str) -> bool:
    """Whether the project itself asks, possibly with ``os.getenv`` or ``.get``.

    Not a library in the project's own environment, which is usually below its root.
    """
    frame = frame.f_back if frame is not None else None  # ours comes first
    while frame is not None and frame.f_globals.get("__name__") in ("os", "collections.abc"):
        frame = frame.f_back
    file = frame.f_code.co_filename if frame is not None else ""
    return file.startswith(root) and "site-packages" not in file[len(root) :]


def print_traceback(error: BaseException) -> None:
    """Like Python, but without our own frames."""
    import traceback

    here = os.path.dirname(__file__)
    steps = list(traceback.walk_tb(error.__traceback__))
    theirs = [
        (frame, line) for frame, line in steps if os.path.dirname(frame.f_code.co_filename) != here
    ]
    told = traceback.TracebackException(type(error), error, error.__traceback__)
    told.stack = traceback.StackSummary.extract(iter(theirs))
    sys.stderr.writelines(told.format() if theirs else told.format_exception_only())
