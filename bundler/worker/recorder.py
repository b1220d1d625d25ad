"""The recorder: what is told of each exchange on the wire while a component fetches.

Runs inside the component's process: the standard library only. The libraries of vendors turn
refused connections into other errors, drop causes and swallow failed sub-requests, so that an
exception tells little and its absence nothing. The wire tells what happened. The client libraries
that are wrapped to tell it are those in ``patches.py``.

An *exchange* is a method, a URL and a body. It is reported as it begins (``request``: method, URL
without user info and query, and an identity by which the same exchange is known again), and when
it ends: ``response`` (status, content type, ``Retry-After``, ``Date``, how often the library
itself tried) or ``failure`` (the chain of exceptions), also when it fails while the body is read.
What a body turns out to be is told when it is parsed: ``not-json`` and
``graphql-errors``, with the exchange that this thread or task has had last. So is that an answer
says there is more of it (``more``), and that a later request asks for that (``followed``).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote, urlsplit

Report = Callable[..., None]
Describe = Callable[[BaseException], list[dict[str, Any]]]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
# On an exception that was told: the number of its exchange, for whoever describes it later.
_MARK = "_state_bundler_wire"
# How answers call what the next page is asked for with.
_CURSORS = (
    "next_cursor",
    "nextCursor",
    "next_page_token",
    "nextPageToken",
    "nextPage",
    "@odata.nextLink",
)
_MOST_CURSORS = 1000
# The exchange that was answered last here: what this thread or task parses next is its body.
_answered: ContextVar[int] = ContextVar("_state_bundler_answered", default=0)


class Recorder:
    """Where exchanges are told; nothing is, before `record` is called."""

    def __init__(self) -> None:
        self._report: Report | None = None
        self._describe: Describe = lambda _: []
        self._numbers = itertools.count(1)
        self._cursors: dict[str, int] = {}

    def record(self, report: Report, describe: Describe) -> None:
        """From now on, tells every exchange."""
        self._report = report
        self._describe = describe

    def begin(self, method: str, url: str, body: Any = None) -> int:
        """Tells a request. Returns the number of the exchange, 0 while nothing is recorded."""
        if self._report is None:
            return 0
        number = next(self._numbers)
        self._report(
            "request", id=number, method=method, url=_public(url), same=_identity(method, url, body)
        )
        self._follow(url, body)
        return number

    def answer(self, number: int, status: int, headers: Mapping[str, str], tries: int = 1) -> None:
        """Tells an answer. tries: how often the library has asked for it."""
        if self._report is None or not number:
            return
        _answered.set(number)
        self._report(
            "response",
            id=number,
            status=int(status),
            type=headers.get("content-type") or "",
            retry_after=headers.get("retry-after"),
            date=headers.get("date"),
            size=None if headers.get("content-encoding") else headers.get("content-length"),
            tries=tries,
        )

    def fail(self, number: int, error: BaseException, tries: int = 1) -> None:
        if self._report is None or not number:
            return
        with suppress(AttributeError):  # an exception with slots
            setattr(error, _MARK, number)
        self._report("failure", id=number, chain=self._describe(error), tries=tries)

    @contextmanager
    def failing(self, number: int, caught: type[BaseException] = BaseException) -> Iterator[None]:
        """Tells what is raised meanwhile as the failure of this exchange."""
        try:
            yield
        except caught as error:
            self.fail(number, error)
            raise

    def not_json(self, document: Any) -> None:
        """What this thread or task could not parse."""
        if self._report is not None:
            text = str(document)
            size = len(text.encode("utf-8", "replace")) if text.strip() else 0
            self._report("not-json", id=_answered.get(), size=size)

    def decoded(self, value: Any) -> None:
        """What this thread or task has parsed."""
        if self._report is None or not isinstance(value, dict):
            return
        if _has_graphql_errors(value):
            self._report("graphql-errors", id=_answered.get())
        cursor = _cursor(value)
        if cursor and len(self._cursors) < _MOST_CURSORS:
            self._report("followed", id=self._cursors.pop(cursor, 0))  # the same page, once more
            self._cursors[cursor] = _answered.get()
            self._report("more", id=_answered.get())

    def _follow(self, url: str, body: Any) -> None:
        if not self._cursors or self._report is None:
            return
        asked = f"{url} {unquote(url)} {body!r}"
        for cursor in [cursor for cursor in list(self._cursors) if cursor in asked]:
            self._report("followed", id=self._cursors.pop(cursor, 0))


def _has_graphql_errors(value: Any) -> bool:
    """Whether this is an answer with errors, other than mere warnings (which Tableau gives)."""
    errors = value.get("errors") if isinstance(value, dict) and "data" in value else None
    return isinstance(errors, list) and any(
        isinstance(error, dict)
        and "message" in error
        and (error.get("extensions") or {}).get("severity") != "WARNING"
        for error in errors
    )


def _cursor(value: dict[str, Any]) -> str:
    """What the answer says the next page is to be asked for with; empty on the last one."""
    for holder in (value, value.get("data"), value.get("meta"), value.get("pagination")):
        if isinstance(holder, dict):
            for name in _CURSORS:
                if isinstance(holder.get(name), str) and holder[name]:
                    return str(holder[name])
    return ""


def _public(url: str) -> str:
    """The URL without user info, query and fragment, with its port."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        host = parts.hostname or ""
    except ValueError:
        return "an unreadable URL"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{port}{parts.path or '/'}"


def _identity(method: str, url: str, body: Any) -> str:
    """Knows the same exchange again, without keeping what it holds."""
    digest = hashlib.sha256(f"{method} {url.partition('#')[0]}\n".encode("utf-8", "replace"))
    if isinstance(body, (bytes, bytearray)):
        digest.update(body)
    elif body is not None:
        digest.update(str(body).encode("utf-8", "replace"))
    return digest.hexdigest()[:16]
