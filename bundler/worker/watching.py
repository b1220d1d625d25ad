"""Watches a component's own code: the variables that it reads, and where it raised.

This runs in the project's interpreter, so it only imports the standard library.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

# `typing` takes longer than everything else here: only the names of types need it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any

_MAX_LINKS = 60
_MAX_TEXT = 2000


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


# --- exceptions -------------------------------------------------------------------------------


def describe(error: BaseException) -> list[dict[str, Any]]:
    """The chain of exceptions behind one, outermost first, as plain values.

    The text of an exception may contain credentials: the parent decides what to show.
    """
    return [_describe_one(link) for link in causes(error)]


def causes(error: BaseException) -> list[BaseException]:
    """The exceptions behind one, outermost first, itself included.

    Follows causes, contexts (including hidden ones), exceptions inside ``args`` and ``reason``, and
    groups.
    """
    links: list[BaseException] = []
    pending: list[Any] = [error]
    seen: set[int] = set()
    while pending and len(links) < _MAX_LINKS:
        link = pending.pop(0)
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        links.append(link)
        pending += [link.__cause__, link.__context__, _attribute(link, "reason")]
        for inside in (_attribute(link, "args"), _attribute(link, "exceptions")):
            pending += inside if isinstance(inside, (tuple, list)) else ()
    return links


def _attribute(of: Any, name: str) -> Any:
    """None if there is no such attribute: a property of a foreign class may raise anything."""
    try:
        return getattr(of, name, None)
    except Exception:  # noqa: BLE001  # see above
        return None


def _describe_one(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    return {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "names": [each.__qualname__.rpartition(".")[2] for each in kind.__mro__[:-1]],
        "errno": _number(_attribute(error, "errno")),
        "status": _status(error),
        "text": _text(error),
        "where": _where(error),
        "wire": _number(_attribute(error, "_state_bundler_wire")),
        "retry_after": _retry_after(error),
    }


def _retry_after(error: BaseException) -> float | None:
    """In seconds, where the exception carries the answer's headers; a date needs another one."""
    for holder in (error, _attribute(error, "response")):
        if (get := _attribute(_attribute(holder, "headers"), "get")) is not None:
            with suppress(Exception):  # a foreign object may raise anything
                return max(0.0, float(get("Retry-After")))
            break
    return None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_MAX_TEXT]
    except BaseException:  # noqa: BLE001  # a foreign __str__ may raise anything
        return ""


def _status(error: BaseException) -> int | None:
    """The HTTP status in an exception of a client library."""
    for holder in (_attribute(error, "response"), error):
        for name in ("status_code", "status", "code"):
            value = _attribute(holder, name)
            if isinstance(value, int) and 100 <= value < 600:  # noqa: PLR2004
                return value
    return None


def _where(error: BaseException) -> str:
    """The file, line and function that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}"


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
