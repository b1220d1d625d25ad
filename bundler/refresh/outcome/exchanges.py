"""Reads the report of an attempt: which exchanges failed for good, and how it ended.

`bundler.worker.recorder` and the worker write it; this reads it line by line, and keeps little of
the exchanges that succeeded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

# The names of a task's cancellation in asyncio, anyio and trio.
_CANCELLED = frozenset({"CancelledError", "Cancelled"})
_CLIENTS = ("requests", "urllib3", "httpx", "httpcore", "aiohttp", "http", "botocore", "google")
_FIRST_FAILED_STATUS = 400
# Problems of a body, and the types of content that they apply to: clients try one format after
# another. HTML instead of JSON is a login page.
_OF_TYPES = {"not-json": ("json", "html"), "graphql-errors": ("json",)}
# Problems of a vendor's answer: it names further pages, which nobody requested; it is equal to
# another page; it is an empty object.
_OF_PAGES = ("more", "repeated", "nothing")
# Bodies are read and parsed while later exchanges already have their answers.
_MOST_RECENT = 4096
# Cloud libraries ask these to find out whether they run in a cloud; elsewhere nobody answers.
_METADATA_HOSTS = frozenset(
    {"169.254.169.254", "metadata.google.internal", "metadata", "fd00:ec2::254"}
)


class Link(msgspec.Struct, frozen=True):
    """One exception of a chain: its class (dotted), errno, HTTP status, text and place.

    names: of the class and its bases, not dotted. retry_after: in seconds, where the exception
    carries the answer's headers. wire: the exchange that it came from, where the recorder saw it.
    """

    type: str
    names: frozenset[str] = frozenset()
    errno: int | None = None
    status: int | None = None
    text: str = ""
    where: str = ""
    wire: int | None = None
    retry_after: float | None = None

    @property
    def is_of_a_client(self) -> bool:
        return self.type.split(".")[0] in _CLIENTS

    @property
    def is_cancelled(self) -> bool:
        return not _CANCELLED.isdisjoint(self.names)

    @property
    def has_status(self) -> bool:
        """Whether an answer had it: aiohttp's parser reports 400 for what it cannot read."""
        return self.status is not None and "BadHttpMessage" not in self.names


class Exchange(msgspec.Struct, frozen=True):
    """A request and its result: a status, a chain of exceptions, or nothing yet.

    url: without user info and query. same: identifies repetitions of the exchange. retry_after: in
    seconds. tries: how often the client library made it by itself. size: of the body, in bytes, if
    known. body: the problem of an answer with a successful status: a fault of
    `bundler.worker.bodies`, or ``accepted``, ``partial``, ``not-modified``, ``skipped`` (by the
    component), ``redirect`` (not followed), ``unanswered`` (when the component had ended), or one
    of `_OF_PAGES`. code: the status that an error document names. newest: the last exchange that
    had begun when this one failed. is_abandoned: whether the component itself ended it, by a
    cancelled task or a closed client, usually because another one had failed.
    """

    id: int
    method: str
    url: str
    same: str
    status: int | None = None
    chain: tuple[Link, ...] = ()
    content_type: str = ""
    retry_after: float | None = None
    date: str = ""
    tries: int = 1
    size: int | None = None
    body: str = ""
    code: int | None = None
    newest: int = 0
    is_abandoned: bool = False


class CopiedDirectory(msgspec.Struct, frozen=True):
    """A directory that the component has copied into its state.

    left_out, ignored: some of the paths below the key directory that were not copied, because they
    never belong in a state, and because git ignores them. ignored_count: of all.
    """

    source: str
    target: str
    left_out: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    ignored_count: int = 0


class Report(msgspec.Struct, frozen=True):
    """The report of an attempt.

    failed: exchanges that failed and did not succeed later, in order. expected: those that failed
    and may. unfollowed: answers with a problem of `_OF_PAGES`. last: the last that was
    answered. waiting: the last without an answer or with an unread body. not_json: whether
    something after the last answer was no JSON, whatever happened to that exception. environment:
    the variables that the project's own code has read. copies: directories that were copied into
    the state. uncopied: why one was not. blind: a client library that could not be watched, and
    why. unfinished: what a process that was left running was still doing to the state.
    """

    failed: tuple[Exchange, ...] = ()
    expected: tuple[Exchange, ...] = ()
    unfollowed: tuple[Exchange, ...] = ()
    last: Exchange | None = None
    waiting: Exchange | None = None
    answered: int = 0
    not_json: bool = False
    returned: bool = False
    raised: tuple[Link, ...] = ()
    environment: tuple[str, ...] = ()
    copies: tuple[CopiedDirectory, ...] = ()
    uncopied: str = ""
    blind: str = ""
    unfinished: str = ""


class _Reading(msgspec.Struct):
    """report: what is known of the attempt so far, besides the exchanges.

    open: those without an answer, by their number; recent: those with one. repeated: the numbers of
    those that have succeeded meanwhile. newest: the number of the last that began.
    """

    allowed: Sequence[str]
    report: Report = Report()
    open: dict[int, Exchange] = msgspec.field(default_factory=dict)
    recent: dict[int, Exchange] = msgspec.field(default_factory=dict)
    failed: dict[str, Exchange] = msgspec.field(default_factory=dict)
    expected: dict[str, Exchange] = msgspec.field(default_factory=dict)
    unfollowed: dict[tuple[int, str], Exchange] = msgspec.field(default_factory=dict)
    redirects: dict[int, Exchange] = msgspec.field(default_factory=dict)
    environment: set[str] = msgspec.field(default_factory=set)
    repeated: set[int] = msgspec.field(default_factory=set)
    newest: int = 0

    def take(self, line: dict[str, Any]) -> None:
        event = line["event"]
        if event == "request":
            self.newest = line["id"]
            self.open[line["id"]] = Exchange(line["id"], line["method"], line["url"], line["same"])
        elif event == "environment":
            # A run record, which names it, is UTF-8.
            self.environment.add(line["name"].encode(errors="backslashreplace").decode())
        elif event == "copied":
            copy = msgspec.convert(line, CopiedDirectory)
            self._note(copies=(*self.report.copies, copy))
        elif event == "uncopied":
            self._note(uncopied=line["reason"])
        elif event == "blind":
            self._note(blind=f"{line['library']} {line['version']}: it has no {line['hook']}")
        elif event == "raised":
            self._note(raised=links(line["chain"]))
        elif event == "handled":  # what a process has raised
            self._note(raised=())
        elif event == "unfinished":
            self._note(unfinished=line["told"])
        elif event == "returned":
            self._note(returned=True)
        else:
            self._take_answer(event, line)

    def _note(self, **facts: Any) -> None:
        self.report = msgspec.structs.replace(self.report, **facts)

    def _take_answer(self, event: str, line: dict[str, Any]) -> None:
        if event == "response":
            self._answer(line)
        elif event == "failure":
            self._fail(line)
        elif event in _OF_TYPES:
            self._reject_parsed(line)
        elif event in ("body", "redirect", *_OF_PAGES):
            self._reject_body(line)
        elif event == "followed":
            self.unfollowed.pop((line["id"], "more"), None)
            self.redirects.pop(line["id"], None)

    def _answer(self, line: dict[str, Any]) -> None:
        exchange = self.open.pop(line["id"], None)
        if exchange is None:
            return
        exchange = msgspec.structs.replace(
            exchange,
            status=line["status"],
            content_type=line["type"],
            retry_after=_seconds(line["retry_after"], line["date"]),
            date=line["date"] or "",
            tries=line["tries"],
            size=line["size"],
        )
        self._note(last=exchange, not_json=False)
        self.recent[exchange.id] = exchange
        if len(self.recent) > _MOST_RECENT:
            self.recent.pop(next(iter(self.recent)))
        if line["status"] >= _FIRST_FAILED_STATUS:
            self._note_failure(exchange)
        else:
            self.failed.pop(exchange.same, None)
            self.expected.pop(exchange.same, None)
            self.repeated |= {one.id for one in self.open.values() if one.same == exchange.same}
            self._note(answered=self.report.answered + 1)

    def _fail(self, line: dict[str, Any]) -> None:
        exchange = self.open.pop(line["id"], None) or self.recent.get(line["id"])  # its body
        if exchange is None:
            return
        chain = links(line["chain"])
        # aiohttp itself may raise an answer's status.
        answered = chain and chain[0].has_status and exchange.status is None
        self._note_failure(
            msgspec.structs.replace(
                exchange,
                status=chain[0].status if answered else None,
                chain=chain,
                tries=line["tries"],
                is_abandoned=line["abandoned"] or bool(chain and chain[0].is_cancelled),
            )
        )

    def _reject_parsed(self, line: dict[str, Any]) -> None:
        """Text that a component fails to parse need not be an answer: only one that promises
        JSON is."""
        event = line["event"]
        if event == "not-json":
            self._note(not_json=True)
        exchange = self.recent.get(line.get("id", 0))
        if exchange is None or (exchange.status or 0) >= _FIRST_FAILED_STATUS:
            return
        promised = any(kind in exchange.content_type for kind in _OF_TYPES[event])
        size = line.get("size")  # of the parsed text; 0 if it was blank
        another = size == 0 or (size and exchange.size and size != exchange.size)
        if promised and not another:
            self._note_failure(msgspec.structs.replace(exchange, body=event))

    def _reject_body(self, line: dict[str, Any]) -> None:
        exchange = self.recent.get(line["id"])
        if exchange is None or (exchange.status or 0) >= _FIRST_FAILED_STATUS:
            return
        fault = line.get("fault", line["event"])
        expected = self.expected.get(exchange.same)
        if fault == "skipped" and expected is not None and expected.id == exchange.id:
            return  # as the consequence of what may be wrong with it
        told = msgspec.structs.replace(exchange, body=fault, code=line.get("code"))
        if line["event"] == "body":
            self._note_failure(told)
        elif is_expected(told, self.allowed):
            return
        elif fault == "redirect":
            self.redirects[exchange.id] = told
        else:
            self.unfollowed[exchange.id, fault] = told

    def _note_failure(self, exchange: Exchange) -> None:
        if exchange.is_abandoned and exchange.id in self.repeated:
            return
        known = self.failed.get(exchange.same)
        if known is not None and known.id == exchange.id:
            return  # the first problem usually says most
        exchange = msgspec.structs.replace(exchange, newest=self.newest)
        if is_expected(exchange, self.allowed):
            self.expected[exchange.same] = exchange
            return
        before = self.failed.pop(exchange.same, None)
        tries = exchange.tries + (before.tries if before else 0)
        self.failed[exchange.same] = msgspec.structs.replace(exchange, tries=tries)

    def end(self) -> None:
        """Notes what a component that has returned did not wait for: a thread or a process of it
        was still waiting."""
        for exchange in list(self.open.values()) if self.report.returned else ():
            unanswered = msgspec.structs.replace(exchange, body="unanswered", is_abandoned=True)
            self._note_failure(unanswered)


def read(path: Path, allowed: Sequence[str] = ()) -> Report:
    """The report in this file; empty if nothing was written."""
    try:
        with open(path, "rb") as stream:
            return report_of(_lines(stream), allowed)
    except FileNotFoundError:
        return Report()


def report_of(lines: Iterable[dict[str, Any]], allowed: Sequence[str] = ()) -> Report:
    """The report, from an attempt's events."""
    reading = _Reading(allowed)
    for line in lines:
        reading.take(line)
    reading.end()
    return msgspec.structs.replace(
        reading.report,
        failed=(*reading.failed.values(), *reading.redirects.values()),
        expected=tuple(reading.expected.values()),
        unfollowed=tuple(reading.unfollowed.values()),
        waiting=next(reversed(reading.open.values()), reading.report.last),
        environment=tuple(sorted(reading.environment)),
    )


def _lines(stream: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for line in stream:
        try:
            yield json.loads(line)
        except ValueError:  # the process was killed while it wrote
            continue


def links(chain: Sequence[dict[str, Any]]) -> tuple[Link, ...]:
    """The chain of exceptions in a worker's report."""
    return msgspec.convert(chain, tuple[Link, ...])


def is_expected(exchange: Exchange, allowed: Sequence[str]) -> bool:
    """Whether a failed exchange may fail: ``METHOD PATH STATUS``, with wildcards.

    The path may begin with the host; the status may be ``4xx``, ``error`` for no answer, and the
    name of a body's fault, such as ``html``.
    """
    parts = urlsplit(exchange.url)
    if parts.hostname in _METADATA_HOSTS:
        return True
    # An answer that says there is more is only allowed by that name: its status is fine.
    names = {exchange.body, "more" if exchange.body == "more" else str(exchange.status or "error")}
    for pattern in allowed:
        method, _, rest = pattern.strip().partition(" ")
        where, _, code = rest.strip().rpartition(" ")
        path = parts.path if where.startswith("/") else f"{parts.hostname}{parts.path}"
        if (
            fnmatchcase(exchange.method, method)
            and fnmatchcase(path, where.replace("[", "[[]"))
            and any(fnmatchcase(name, code.lower().replace("x", "?")) for name in names)
        ):
            return True
    return False


def _seconds(retry_after: str | None, date: str | None) -> float | None:
    """``Retry-After`` in seconds: a number, or a date relative to the server's own clock."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    until, now = timestamp_of(retry_after), timestamp_of(date)
    return None if until is None or now is None else max(0.0, until - now)


def timestamp_of(date: str | None) -> float | None:
    """The date of a header in seconds since 1970; None if it is not a date."""
    from email.utils import mktime_tz, parsedate_tz

    try:
        parsed = parsedate_tz(date or "")
        return float(mktime_tz(parsed)) if parsed else None
    except (ValueError, TypeError, OverflowError):
        return None
