"""The recorder: what is recorded of each exchange on the wire while a component fetches.

Runs inside the component's process: the standard library only. The libraries of vendors turn
refused connections into other errors, drop causes and swallow failed sub-requests, so that an
exception says little and its absence nothing. The wire shows what happened. The client libraries
that are wrapped to tell it are those in ``patches.py``; the bodies are judged by ``bodies.py``.

An *exchange* is a method, a URL and a body. It is reported as it begins (``request``: method, URL
without user info and query, and an identity by which the same exchange is known again), and when
it ends: ``response`` (status, content type, ``Retry-After``, ``Date``, how often the library
itself tried) or ``failure`` (the chain of exceptions), also when it fails while the body is read.
A ``body`` is what is wrong with an answer whose status says that all is well; it is ``skipped`` if
a vendor's library logs that it left out what it could not use. A ``not-json`` is a text that could
not be parsed, with the exchange that this thread or task has had last. An answer may say that there
is more of it (``more``) or that it is elsewhere (``redirect``); a later request may ask for that
(``followed``). It may be an empty object (``nothing``), or a page of a list that another one was,
too (``repeated``). A client library that cannot be watched is ``blind``.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit

if TYPE_CHECKING:
    from types import ModuleType

    from bundler.worker.bodies import Body

Report = Callable[..., None]
Describe = Callable[[BaseException], list[dict[str, Any]]]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
# On a recorded exception: the number of its exchange, for a later description.
_MARK = "_state_bundler_wire"
# Names in answers for what the next page is requested with.
_CURSORS = (
    "next_cursor",
    "nextCursor",
    "next_page_token",
    "nextPageToken",
    "nextPage",
    "@odata.nextLink",
)
_MOST_CURSORS = 1000
# Shorter ones are in many URLs by chance.
_LONG_CURSOR = 16
# Parameters in which the URLs of two pages of a list differ.
_PAGE = re.compile(r"(?i)page|offset|cursor|skip|after|next|start_?(?:at|index)?$")
# What vendors' libraries log when they catch an exception, or get nothing, and continue.
_SKIPPED = re.compile(
    r"Failed to fetch LookML explore|Failed to process Tableau workbook"
    r"|No data retrieved for Tableau workbook|Ignoring connector `"
)
# Of other methods: nothing has been done yet. After another redirect, a form may have been saved.
_TO_REPEAT = (307, 308)
_REDIRECTS_OF = {"GET": (301, 302, 303, *_TO_REPEAT), "HEAD": ()}
# More are no number of bytes, and Python refuses thousands.
_MOST_DIGITS = 18
_ACCEPTED, _PARTIAL, _NOT_MODIFIED = 202, 206, 304
_WITHOUT_BODY = (204, 205)
_CODINGS = ("gzip", "x-gzip", "deflate", "br", "zstd", "compress")
_CONDITIONAL = ("if-none-match", "if-modified-since")
# Azure's own header, too.
_RANGES = ("range", "x-ms-range")
# What a request asks for that continues another one, whose answer was cut off.
_REST = re.compile(r"bytes=\d+-")
# Headers that select what the answer is about; others differ when a request is repeated.
_SCOPE = re.compile(
    r"^(?:(?:x-ms-)?range|soapaction|x-amz-target)$|tenant|(?<![a-z])org(?!in)|project|workspace|account"
    r"|site(?!map)|profile|database|schema|region"
)
_is_quiet: ContextVar[bool] = ContextVar("_state_bundler_quiet", default=False)


class RecordedRequest:
    """A recorded request. number: of its exchange, 0 while nothing is recorded. headers: their
    names. body: of its answer."""

    __slots__ = ("body", "headers", "method", "number", "url")

    def __init__(self, number: int, method: str, url: str) -> None:
        self.number = number
        self.method = method
        self.url = url
        self.headers: set[str] = set()
        self.body: Body | None = None


_NO_REQUEST = RecordedRequest(0, "", "")
# The request that was answered last: what this thread or task parses next is the answer's body.
_answered: ContextVar[RecordedRequest] = ContextVar("_state_bundler_answered")


class Recorder:
    """Records exchanges; nothing before `record` is called.

    bodies, error_objects: the modules with these names. path: of the file that it reports to.
    """

    path = ""

    def __init__(self, bodies: ModuleType, error_objects: ModuleType) -> None:
        self._bodies = bodies
        self.error_in = error_objects.error_in
        self._has_graphql_errors = error_objects.has_graphql_errors
        self._report: Report | None = None
        self._describe: Describe = lambda _: []
        self._numbers = itertools.count(1)
        self._cursors: dict[tuple[str, str], int] = {}
        self._pages: dict[tuple[str, int], str] = {}
        self._redirects: dict[str, int] = {}
        self._blind: list[tuple[str, str]] = []

    def record(self, report: Report, describe: Describe, path: str = "") -> None:
        """From now on, records every exchange."""
        self.path = path
        self._report = report
        self._describe = describe
        for library, hook in self._blind:
            report("blind", library=library, version=_version(library), hook=hook)

    def blind(self, library: str, hook: str) -> None:
        """Records that an imported client library lacks what it would be watched by."""
        self._blind.append((library, hook))
        if self._report is not None:
            self._report("blind", library=library, version=_version(library), hook=hook)

    def begin(
        self, method: str, url: str, body: Any = None, headers: Iterable[tuple[Any, Any]] = ()
    ) -> RecordedRequest:
        """Records a request."""
        if self._report is None:
            return RecordedRequest(0, method, url)
        # A component may fork, and both processes go on counting.
        number = os.getpid() << 32 | next(self._numbers)
        request = RecordedRequest(number, method.upper(), url)
        sent = sorted((_text(name).lower(), _text(value)) for name, value in headers)
        request.headers.update(name for name, _ in sent)
        scope = [pair for pair in sent if _SCOPE.search(pair[0]) and not _REST.fullmatch(pair[1])]
        self._report(
            "request",
            id=request.number,
            method=method,
            url=_public(url),
            same=_identity(number, method, url, scope, body),
        )
        self._follow(url, body)
        return request

    def answer(
        self, request: RecordedRequest, status: int, headers: Mapping[str, str], tries: int = 1
    ) -> Body | None:
        """Records an answer.

        tries: how often the library has sent the request. Returns what its body is to be passed to,
        if it is to be judged.
        """
        if self._report is None or not request.number:
            return None
        status = int(status)
        coding = headers.get("content-encoding") or ""
        length = _number(headers.get("content-length") or "")
        _answered.set(request)
        self._report(
            "response",
            id=request.number,
            status=status,
            type=headers.get("content-type") or "",
            retry_after=headers.get("retry-after"),
            date=headers.get("date"),
            size=None if coding else length,
            tries=tries,
        )
        self._judge_status(request, status, headers.get("location"))
        if not 200 <= status < 300 or status in _WITHOUT_BODY or request.method == "HEAD":  # noqa: PLR2004
            return None
        if headers.get("transfer-encoding"):
            length = None
        body: Body = self._bodies.Body(
            self,
            request.number,
            kind=headers.get("content-type") or "",
            asks=request.method == "GET" and status != _ACCEPTED,
            coding=_coding(coding),
            length=length,
        )
        request.body = body
        if length == 0:
            body.end()
        return body

    def _judge_status(self, request: RecordedRequest, status: int, location: str | None) -> None:
        if status == _NOT_MODIFIED and request.headers.isdisjoint(_CONDITIONAL):
            self.reject(request.number, "not-modified")
        elif status == _PARTIAL and request.headers.isdisjoint(_RANGES):
            self.reject(request.number, "partial")
        elif status == _ACCEPTED and request.method == "GET":
            self.reject(request.number, "accepted")
        elif status in _WITHOUT_BODY and request.method == "GET":
            self.reject(request.number, "empty")
        elif status in _REDIRECTS_OF.get(request.method, _TO_REPEAT) and self._report is not None:
            with suppress(ValueError):  # no URL: it is not followed
                self._redirects[_target(urljoin(request.url, location or ""))] = request.number
            self._report("redirect", id=request.number)

    def reject(self, number: int, fault: str, code: int | None = None) -> None:
        """Records the problem of an answer."""
        if self._report is not None and number:
            self._report("body", id=number, fault=fault, code=code)

    def fail(self, number: int, error: BaseException, tries: int = 1, client: Any = None) -> None:
        """client: what made the request. If it is closed by now, the component abandoned it."""
        if self._report is None or not number:
            return
        with suppress(Exception):  # one with slots, or that raises anything
            setattr(error, _MARK, number)
        # What this thread or task leaves out now is not what it was answered before.
        _answered.set(RecordedRequest(number, "", ""))
        abandoned = bool(getattr(client, "closed", False))
        chain = self._describe(error)
        self._report("failure", id=number, chain=chain, tries=tries, abandoned=abandoned)

    @contextmanager
    def failing(self, number: int, client: Any = None) -> Iterator[None]:
        """Records an exception inside the block as the failure of this exchange."""
        try:
            yield
        except GeneratorExit:  # the reader has stopped
            raise
        except BaseException as error:
            self.fail(number, error, client=client)
            raise

    def died(self, error: BaseException) -> None:
        """Records what ends a process that the component has started."""
        if self._report is not None:
            self._report("raised", chain=self._describe(error))

    def looked_at_exit(self) -> None:
        """Records that the component knows of a process that has failed."""
        if self._report is not None:
            self._report("handled")

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Inside the block, text that cannot be parsed is not recorded."""
        token = _is_quiet.set(True)
        try:
            yield
        finally:
            _is_quiet.reset(token)

    def not_json(self, document: Any) -> None:
        """Records that this thread or task could not parse something."""
        if self._report is not None and not _is_quiet.get():
            text = str(document)
            size = len(text.encode("utf-8", "replace")) if text.strip() else 0
            self._report("not-json", id=_answered.get(_NO_REQUEST).number, size=size)

    def decoded(self, value: Any, text: Any) -> None:
        """Records what this thread or task has parsed, and from which text."""
        if self._report is None:
            return
        request = _answered.get(_NO_REQUEST)
        size = request.body.size if request.body is not None else 0
        if _is_misread(text, size):
            self.reject(request.number, "not-utf-8")
        if self._has_graphql_errors(value):
            self._report("graphql-errors", id=request.number)
        if not isinstance(value, dict):
            return
        if request.method == "GET" and _is_whole(text, size):
            self._compare(request, value)
        cursor = _cursor(value)
        if cursor and len(self._cursors) < _MOST_CURSORS:
            page = (request.url, cursor)
            self._report("followed", id=self._cursors.pop(page, 0))  # the same page again
            self._cursors[page] = request.number
            self._report("more", id=request.number)

    def _compare(self, request: RecordedRequest, value: dict[str, Any]) -> None:
        """Reports an answer without anything, and a page that another page is equal to."""
        if self._report is None:
            return
        if not value:
            self._report("nothing", id=request.number)
        path, _, query = request.url.partition("?")
        rows = [row for rows in value.values() if isinstance(rows, list) for row in rows]
        if query and rows and len(self._pages) < _MOST_CURSORS:
            digest = 0
            for row in rows:  # one by one: together they may be large
                digest = hash((digest, repr(row)))
            other = self._pages.setdefault((path, digest), query)
            differs = {name for name, _ in {*parse_qsl(other)} ^ {*parse_qsl(query)}}
            if differs and all(map(_PAGE.search, differs)):
                self._report("repeated", id=request.number)

    def warned(self, message: Any) -> None:
        """Records that a vendor's library leaves something out, if that is what it logs."""
        if isinstance(message, str) and _SKIPPED.match(message):
            self.reject(_answered.get(_NO_REQUEST).number, "skipped")

    def _follow(self, url: str, body: Any) -> None:
        if self._report is None:
            return
        if self._redirects:
            redirect = self._redirects.pop(_target(url), 0)
            if redirect:
                self._report("followed", id=redirect)
        if self._cursors:
            words = f"{unquote(url.partition('?')[2])} {body!r}"
            for page in list(self._cursors):
                if _asks_for(*page, url, words):
                    self._report("followed", id=self._cursors.pop(page, 0))


def _asks_for(answered: str, cursor: str, url: str, words: str) -> bool:
    """Whether a request is for what a cursor in the answer to another URL stands for.

    words: its query and body.
    """
    if len(cursor) >= _LONG_CURSOR and any(cursor in it for it in (url, unquote(url), words)):
        return True
    try:
        asked = urlsplit(url)
        if cursor.startswith(("https:", "http:", "/", "?")):
            at = urlsplit(urljoin(answered, cursor))
            if at.path == asked.path:  # the client may add to the query
                return {*parse_qsl(at.query)} <= {*parse_qsl(asked.query)}
        is_same_list = cursor in words and urlsplit(answered).path == asked.path
    except ValueError:  # no URL
        return False
    return is_same_list and bool(re.search(rf"(?<!\w){re.escape(cursor)}(?!\w)", words))


def _is_whole(text: Any, size: int) -> bool:
    """Whether a text was a body of that many bytes, and not a value in it or anything else."""
    if not isinstance(text, str) or len(text) > size:
        return False
    length = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return size - length in (0, len(codecs.BOM_UTF8))


def _is_misread(text: Any, size: int) -> bool:
    """Whether a client took each byte of UTF-8 for a character, as requests does for `text/*`."""
    if not isinstance(text, str) or len(text) != size or text.isascii():
        return False
    if "\ufffd" in text:
        return True
    for charset in ("latin-1", "cp1252"):
        with suppress(UnicodeError):
            text.encode(charset).decode("utf-8")
            return True
    return False


def _cursor(value: dict[str, Any]) -> str:
    """What the answer says the next page is to be requested with; empty on the last one."""
    for holder in (value, value.get("data"), value.get("meta"), value.get("pagination")):
        if isinstance(holder, dict) and _may_continue(holder):
            for name in _CURSORS:
                if isinstance(holder.get(name), str) and holder[name]:
                    return str(holder[name])
    return _next_offset(value.get("extra"))


def _next_offset(extra: Any) -> str:
    """What leads to the next page in dbt Cloud, which only says how long a list is."""
    try:
        counts, offset = extra["pagination"], int(extra["filters"]["offset"])
        following = offset + counts["count"]
        return f"offset={following}" if following < counts["total_count"] else ""
    except (KeyError, OverflowError, TypeError, ValueError):
        return ""


def _may_continue(holder: dict[str, Any]) -> bool:
    """Unless an answer says that this was the last page; Sigma's client also takes words for it."""
    return str(holder.get("hasMore", holder.get("has_more"))).lower() != "false"


def _number(length: str) -> int | None:
    """A header's number of bytes; a server may send anything, also digits that are not ASCII."""
    is_number = length.isascii() and length.isdigit() and len(length) <= _MOST_DIGITS
    return int(length) if is_number else None


def _coding(header: str) -> str:
    """How a body is compressed; that header sometimes has other values, too."""
    names = [name.strip().lower() for name in header.split(",")]
    return ", ".join(name for name in names if name in _CODINGS)


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


def _target(url: str) -> str:
    """The same for all spellings of a URL."""
    return f"{unquote(_public(url))}?{unquote(url.partition('#')[0].partition('?')[2])}"


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _identity(number: int, method: str, url: str, scope: list[Any], body: Any) -> str:
    """Identifies repetitions of the exchange, without keeping its contents."""
    target = f"{method} {url.partition('#')[0]}\n{scope or ''}"
    digest = hashlib.sha256(target.encode("utf-8", "replace"))
    if isinstance(body, (bytes, bytearray)):
        digest.update(body)
    elif body is not None:
        text = str(body)
        # A stream is shown by its address: what it will send is unknown.
        digest.update(f"{text}{number if ' at 0x' in text else ''}".encode("utf-8", "replace"))
    return digest.hexdigest()[:16]


def _version(library: str) -> str:
    """The version of the distribution with this module, or of the interpreter for its own."""
    import platform
    from importlib import metadata

    names = metadata.packages_distributions().get(library, ())
    return metadata.version(names[0]) if names else f"of Python {platform.python_version()}"
