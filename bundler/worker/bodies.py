"""Judges the body of an answer while it streams, whatever the component does with it.

Runs inside the component's process: the standard library only, flat memory, little time.

A body of up to 32 KiB is kept and parsed at its end. That finds every error in JSON, and documents
that only report an error. A larger JSON document is checked as it streams: its encoding, its
beginning, its end, that every string is closed, that brackets match, and how deep they nest. That
finds a document that was cut anywhere, and text before or after it. It does not find a missing
comma or a misspelt word in the middle, nor an error document of that size. In XML the end of the
document is checked, and whether it is an error. Every other format is only searched for HTML.

Each fault has a name; the table in `docs/explanation/refresh.md` says what is rejected with it.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

_WHOLE_BYTES = 32 * 1024
_PIECE_BYTES = 64 * 1024
# Python's own parser gives up at about a thousand.
_MOST_NESTED = 900
_PASSES = 32
# Anything with a better compression ratio is an attack. JSON shrinks to a twentieth at best.
_BOMB_BYTES = 10 * 1024 * 1024
_BOMB_RATIO = 200
_INFLATE_BYTES = 1024 * 1024
_TAIL_BYTES = 512

_JSON_TYPE = re.compile(r"(?:application|text)/(?:[\w.+-]*[+-])?(?:json|jsonl|ndjson|json-?lines)$")
_XML_TYPE = re.compile(r"(?:application|text)/(?:[\w.+-]*\+)?xml$")
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_COMMA, _SEMICOLON = re.compile(r",(?=\s*[\w.+-]+/)"), re.compile(r"[;,\s]")
# Types that servers use for anything: then the body itself decides.
_ANY_TYPES = ("", "text/plain", "application/octet-stream", "binary/octet-stream")
_SPACE = b" \t\r\n"
_HTML = re.compile(rb"(?i)<(?:!doctype\s+html|html)(?![\w:.-])")
_LIKE_JSON = re.compile(rb'\s*(?:\{\s*["}]|\[\s*[{"\]])')
# Prefixes that Google, Gerrit and others put before JSON, so that browsers do not run it.
_GUARD = re.compile(r"\)\]\}'?,?\s*\n|while\s*\(1\);|for\s*\(;;\);")
_XML_ROOT = re.compile(rb"<([^\s/>!?]+)")
_XML_ENDS = ((b"<?", re.compile(rb"\?>")), (b"<!--", re.compile(rb"-->")))
_DTD_END, _OWN_DTD_END = re.compile(rb">"), re.compile(rb"\]\s*>")
_XML_ERRORS = re.compile(
    rb"(?i)(?:error|errors|error-?response|fault|exception|exceptionreport"
    rb"|serviceexceptionreport|problem)$"
)
_XML_MAY_FOLLOW = rb"(?:\s|<!--(?:(?!-->)[\s\S])*-->|<\?(?:(?!\?>)[\s\S])*\?>)*\Z"
_SOAP_FAULT = re.compile(rb"<(?:[\w.-]+:)?Fault[\s>]")
_STRUCTURAL = b'"{}[]'
_OTHERS = bytes(byte for byte in range(256) if byte not in _STRUCTURAL)
_ESCAPE = re.compile(rb'\\["\\]')
# For longer strings, two replacements are faster than an expression that stops at each backslash.
_MANY_ESCAPES, _SAMPLE_BYTES = 120, 8192


class Wire(Protocol):
    """What judging a body needs from the recorder."""

    def reject(self, number: int, fault: str, code: int | None = None) -> None: ...

    def quiet(self) -> AbstractContextManager[None]:
        """Inside the block, text that cannot be parsed is not a failure."""

    def error_in(self, value: Any) -> tuple[str, int | None] | None: ...


class Body:
    """The body of one answer. Client libraries are patched to call `take` and `end`.

    number: of its exchange. size: the decoded bytes so far. asks: whether the request was one for
    data (GET). decoded: whether the client library decodes it, so that `take_coded` only counts.
    depth: of the library's own calls. client: what made the request, if it can be closed meanwhile.
    """

    def __init__(
        self, wire: Wire, number: int, *, kind: str, asks: bool, coding: str, length: int | None
    ) -> None:
        self.number = number
        self.decoded = False
        self.depth = 0
        self.client: Any = None
        self.ended = False
        self._wire = wire
        # Some servers send several types, or forget the semicolon.
        kinds = {_SEMICOLON.split(it.strip())[0].lower() for it in _COMMA.split(kind)}
        self._type = kinds.pop() if len(kinds) == 1 else ""
        self._charset = _charset(kind)
        self._asks = asks
        self._coding = coding
        self._length = length
        self.size = 0
        self._coded = 0
        self._pieces: list[bytes] = []
        self._held = 0
        self._scan: _Scan | None = None
        self._inflate: Any = None

    def take(self, data: Any) -> None:
        """Receives the next decoded bytes."""
        if self.ended or not data:
            return
        self.size += len(data)
        self._pieces.append(bytes(data))
        self._held += len(data)
        if self._held >= _PIECE_BYTES:
            self._drain()
        if self._coding:
            self._refuse_bomb()
        elif self.size == self._length:
            self.end()

    def take_coded(self, data: Any) -> None:
        """Receives the next bytes as they were sent."""
        if self.ended or not data:
            return
        self.count_coded(data)
        if self.decoded:
            return
        for part in self._inflated(bytes(data)) if self._coding else (data,):
            self.take(part)

    def count_coded(self, data: bytes) -> None:
        """Counts compressed bytes that the client library is about to decode."""
        self._coded += len(data) if self._coding else 0

    def end(self, *, missing: bool = False) -> None:
        """The body has ended. missing: whether more was expected."""
        if self.ended:
            return
        self.ended = True
        if missing or (self._inflate is not None and not self._inflate.eof):
            self._reject("cut")
        elif self._scan is not None or self.size > _WHOLE_BYTES:
            self._drain()
            self._reject(self._scan.finish() if self._scan is not None else self._nothing())
        elif self.size:
            self._judge_whole(b"".join(self._pieces))
        elif self._is_known_empty:
            self._reject(self._nothing())
        self._pieces.clear()

    def end_coded(self) -> None:
        """The sent bytes have ended; a client library that decodes may still have some."""
        if not self.decoded:
            self.end()

    def _nothing(self) -> str:
        """The fault of an empty answer; None if its type may be empty."""
        kind = self._type
        speaks = not kind or kind in _HTML_TYPES or _is_json(kind) or _XML_TYPE.match(kind)
        return "empty" if self._asks and speaks else ""

    @property
    def _is_known_empty(self) -> bool:
        """Whether it is certainly empty: not if nothing here could decompress it."""
        return not self._coded or self.decoded or self._inflate is not None

    def _reject(self, fault: str, code: int | None = None) -> None:
        if fault:
            self._wire.reject(self.number, fault, code)

    def _refuse_bomb(self) -> None:
        came = self._coded or self._length or self.size
        if self.size > _BOMB_BYTES and self.size > _BOMB_RATIO * came:
            self.ended = True
            self._pieces.clear()
            self._reject("bomb")

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        if self._coding not in ("gzip", "x-gzip", "deflate"):
            return  # the standard library cannot read it
        try:
            while data and not self.ended:
                if self._inflate is None or self._inflate.eof:  # gzip may have several members
                    self._inflate = zlib.decompressobj(wbits=_wbits(data))
                yield self._inflate.decompress(data, _INFLATE_BYTES)
                data = self._inflate.unconsumed_tail or self._inflate.unused_data
        except zlib.error:
            self.end(missing=True)

    # --- what it says -------------------------------------------------------------------------

    def _drain(self) -> None:
        piece = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if self._scan is None:
            if not piece.strip(_SPACE):
                return
            self._scan = self._scan_of(piece)
        fault = self._scan.feed(piece)
        if fault:
            self._reject(fault)
            self._scan = _Scan()

    def _scan_of(self, head: bytes) -> _Scan:
        form = self._form(head.removeprefix(codecs.BOM_UTF8))
        if form == "html":
            self._reject("html")
        elif form == "xml":
            return _Xml(head)
        elif form == "json":
            return _Json(_encoding(head, self._charset), declared=_is_json(self._type))
        return _Scan()

    def _form(self, head: bytes) -> str:
        """The format to judge it by: ``html``, ``xml``, ``json``, or none that is known."""
        if not head.strip(_SPACE):
            return ""
        if self._type in _HTML_TYPES or _HTML.match(_after_prologue(head)):
            return "html"
        if _is_json(self._type):
            return "json"
        if _XML_TYPE.match(self._type) or head.lstrip(_SPACE).startswith(b"<?xml"):
            return "xml"
        return "json" if self._type in _ANY_TYPES and _LIKE_JSON.match(head) else ""

    def _judge_whole(self, raw: bytes) -> None:
        if not raw.strip(_SPACE):
            self._reject(self._nothing())
            return
        scan = self._scan_of(raw)
        fault = scan.feed(raw) or scan.finish()
        if isinstance(scan, _Json) and fault in ("", "not-json"):
            self._judge_json(raw, scan.encoding, fault)
        else:
            self._reject(fault)

    def _judge_json(self, raw: bytes, encoding: str, fault: str) -> None:
        declared = _is_json(self._type)
        try:
            with self._wire.quiet():
                values = _values(raw.decode(encoding))
        except RecursionError:
            self._reject("too-deep")
        except ValueError:
            # Some servers answer a command with "OK".
            if declared and (self._asks or raw.lstrip(_SPACE)[:1] in (b"{", b"[", b"<")):
                self._reject("not-json")
            elif not declared:
                self._reject(fault)
        else:
            error = self._wire.error_in(values[0]) if len(values) == 1 else None
            if error is not None:
                self._reject(*error)
            elif self._type == "application/problem+json":
                self._reject("error-object")


class _Scan:
    """Reads a body in pieces. This base class checks nothing."""

    def feed(self, piece: bytes) -> str:  # noqa: ARG002  # for those that do
        return ""

    def finish(self) -> str:
        return ""


class _Json(_Scan):
    """Checks that strings are closed and brackets match, at the speed of `bytes`' own methods.

    declared: else more may follow, since other formats begin alike: TOML, or a table whose first
    column is JSON.
    """

    def __init__(self, encoding: str, *, declared: bool = True) -> None:
        self.encoding = encoding
        self._declared = declared
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._is_split = False  # inside a character
        self._first = b""
        self._last = b""
        self._escape = b""
        self._inside = False
        self._open = b""

    def feed(self, piece: bytes) -> str:
        try:
            # Most JSON is ASCII, which is recognised five times as fast.
            if self.encoding != "utf-8":
                piece = self._decoder.decode(piece).encode("utf-8", "surrogatepass")
            elif self._is_split or not piece.isascii():
                self._decoder.decode(piece)
                self._is_split = bool(self._decoder.getstate()[0])
        except UnicodeDecodeError:
            return "not-utf-8"
        if not self._first:
            # No Unicode encoding has this before JSON; it may only be in the first piece.
            piece = piece.removeprefix(codecs.BOM_UTF8).lstrip(_SPACE)
            guard = _GUARD.match(piece[:40].decode("latin-1"))
            piece = piece[guard.end() :].lstrip(_SPACE) if guard else piece
            self._first = piece[:1]
            if self._first and self._first not in b'{["-0123456789tfnNI':
                return "not-json"
        self._last = piece.rstrip(_SPACE)[-1:] or self._last
        return self._match(self._brackets(self._unescaped(self._escape + piece)))

    def finish(self) -> str:
        try:
            self._decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "not-utf-8"
        closed = {b"{": b"}", b"[": b"]"}.get(self._first, self._last)
        whole = self._last == closed or not self._declared
        is_open = self._open or self._inside or self._escape
        return "" if whole and not is_open else "not-json"

    def _unescaped(self, piece: bytes) -> bytes:
        self._escape = b""
        if b"\\" not in piece:
            return piece
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            self._escape = b"\\"
            piece = piece[:-1]
        # Pairs of backslashes from the left: a remaining one before a quote escapes it.
        if piece.count(b"\\", 0, _SAMPLE_BYTES) < _MANY_ESCAPES:
            return _ESCAPE.sub(b"", piece)
        return piece.replace(b"\\\\", b"").replace(b'\\"', b"")

    def _brackets(self, piece: bytes) -> bytes:
        """Those outside strings."""
        marks = piece.translate(None, _OTHERS)
        if self._inside:
            marks = b'"' + marks
        quotes = marks.count(b'"')
        self._inside = bool(quotes % 2)
        if self._inside:
            marks = marks[: marks.rindex(b'"')]
            quotes -= 1
        if 2 * marks.count(b'""') == quotes:  # no string contains a bracket
            return marks.translate(None, b'"')
        # There is no bracket between two adjacent quotes, whether that is a string or not.
        return b"".join(marks.replace(b'""', b"").split(b'"')[::2])

    def _match(self, marks: bytes) -> str:
        marks = self._open + marks
        for _ in range(_PASSES):
            before = len(marks)
            marks = marks.replace(b"{}", b"").replace(b"[]", b"")
            if len(marks) == before:
                break
        else:
            return self._match_slowly(marks)
        if marks.translate(None, b"{["):
            return "not-json"
        self._open = marks
        return "too-deep" if len(marks) > _MOST_NESTED else ""

    def _match_slowly(self, marks: bytes) -> str:
        """One by one, if each pass would find few of them."""
        is_open = bytearray()
        for mark in marks:
            if mark in b"{[":
                is_open.append(mark)
            elif not is_open or is_open.pop() != mark - 2:  # as `{` and `}`, `[` and `]` differ
                return "not-json"
            if len(is_open) > _MOST_NESTED:
                return "too-deep"
        self._open = bytes(is_open)
        return ""


class _Xml(_Scan):
    """Checks that the outermost element is closed, and is not an error."""

    def __init__(self, head: bytes) -> None:
        self._tail = b""
        self._fault = ""
        readable = b"\0" not in head[:64]  # else it is UTF-16, which is not checked
        root = _XML_ROOT.match(_after_prologue(head.removeprefix(codecs.BOM_UTF8)))
        self._root = root[1] if root and readable else b""
        name = self._root.rpartition(b":")[2]
        soap = name == b"Envelope" and _SOAP_FAULT.search(head)
        if soap or _XML_ERRORS.match(name):
            self._fault = "error-object"
        elif not self._root and readable:
            self._fault = "not-json"

    def feed(self, piece: bytes) -> str:
        self._tail = (self._tail + piece)[-_TAIL_BYTES:] if self._root else b""
        return self._fault

    def finish(self) -> str:
        closed = re.search(
            rb"(?:</" + re.escape(self._root) + rb"\s*|/)>" + _XML_MAY_FOLLOW, self._tail
        )
        return "" if closed or not self._root else "not-json"


def _after_prologue(head: bytes) -> bytes:
    """The beginning of a document without comments, processing instructions and a DTD."""
    while True:
        head = head.lstrip(_SPACE)
        end = next((end for begin, end in _XML_ENDS if head.startswith(begin)), None)
        if end is None and head[:9].upper() == b"<!DOCTYPE" and not _HTML.match(head):
            end = _OWN_DTD_END if b"[" in head.partition(b">")[0] else _DTD_END
        elif end is None:
            return head
        found = end.search(head)
        if found is None:
            return b""
        head = head[found.end() :]


def _is_json(kind: str) -> bool:
    return bool(_JSON_TYPE.match(kind))


def _charset(kind: str) -> str:
    found = re.search(r"(?i)charset\s*=\s*[\"']?([\w.:-]+)", kind)
    return found[1].lower() if found else ""


def _encoding(head: bytes, charset: str) -> str:
    """Like clients: the declared encoding, else what the first bytes of JSON show."""
    try:
        name = codecs.lookup(charset).name if charset else ""
        codecs.getincrementaldecoder(name or "utf-8")
    except LookupError:
        name = ""
    if name not in ("", "utf-8", "ascii"):
        return name
    return "utf-8" if b"\0" not in head[:4] else json.detect_encoding(head)


def _wbits(head: bytes) -> int:
    """For gzip, zlib, or deflate without any header, which some servers send."""
    if head[:2] == b"\x1f\x8b":
        return 31
    return 15 if head[:1] == b"\x78" else -15


def _values(text: str) -> list[Any]:
    """The documents in it: one, or several with line breaks between them."""
    text = text.removeprefix("\ufeff")
    guard = _GUARD.match(text)
    text = (text[guard.end() :] if guard else text).strip()
    decoder = json.JSONDecoder()
    values = []
    at = 0
    while True:
        value, at = decoder.raw_decode(text, at)
        values.append(value)
        following = re.compile(r"\s*").match(text, at)
        between = following[0] if following else ""
        at += len(between)
        if at == len(text):
            return values
        if "\n" not in between:
            raise ValueError
