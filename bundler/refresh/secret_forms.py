"""The forms of a value in different encodings."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

import msgspec

# Programs escape only what they must, or more: JSON of Go, .NET and PHP, JavaScript's URLs.
_JSON_ESCAPES = ("", "<>&", "<>&'+`", "<>&'\"+`", "/")
_URL_SAFE = ("", "/", "!'()*~", ";,/?:@&=+$#!'()*~", "~")
_NEWLINES = ("\n", "\r\n", "\r", " ", "")


class Secret(msgspec.Struct, frozen=True):
    """what: words for a message, such as ``the password in DATABASE_URL``."""

    variable: str
    value: str
    what: str


def forms(value: str) -> set[bytes]:
    """The value itself and in every encoding that is searched for.

    Without surrounding white space: a file's last newline is usually not copied.
    """
    value = value.strip()
    found: set[bytes] = set()
    for newline in _NEWLINES if "\n" in value else ("\n",):
        found |= set(_forms(value.replace("\r\n", "\n").replace("\n", newline)))
    return found


def _forms(value: str) -> Iterator[bytes]:
    raw = value.encode("utf-8", "surrogateescape")
    text = raw.decode("utf-8", "replace")
    yield raw
    wide = [text.encode("utf-16-le"), text.encode("utf-16-be")]
    # Without the zero at its end, ASCII looks the same in both.
    yield from (encoded.strip(b"\0") for encoded in wide)
    for encoded in (raw, wide[0]):
        yield from in_base64(encoded)
    yield from _in_groups(raw, base64.b32encode, (0, 2, 4, 5, 7), 5)
    yield from (form.lower() for form in _in_groups(raw, base64.b32encode, (0, 2, 4, 5, 7), 5))
    for escaped in (raw.hex(), *_escaped(text, raw)):
        yield escaped.encode("utf-8", "surrogateescape")
    yield raw.hex().upper().encode()


def in_base64(raw: bytes) -> Iterator[bytes]:
    """The base64 forms of the bytes, for any position in what is encoded."""
    yield from _in_groups(raw, base64.b64encode, (0, 2, 3), 6)
    yield from _in_groups(raw, base64.urlsafe_b64encode, (0, 2, 3), 6)


def _in_groups(
    raw: bytes, encode: Callable[[bytes], bytes], first: tuple[int, ...], bits: int
) -> Iterator[bytes]:
    """The value in an encoding in groups, for any position in what is encoded.

    first: by the number of bytes before it in its group, the first character that contains none of
    them. The last character, which may contain bits of what follows, is left off as well.
    """
    for before, begin in enumerate(first):
        yield encode(b"\0" * before + raw)[begin : (before + len(raw)) * 8 // bits]


def _escaped(text: str, raw: bytes) -> Iterator[str]:
    for safe in _URL_SAFE:
        yield from _in_both_cases(quote(raw, safe=safe), "%")
    yield from _in_both_cases(quote_plus(raw), "%")
    yield from _in_both_cases("".join(f"%{byte:02X}" for byte in raw), "%")
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        for others in _JSON_ESCAPES:
            yield from _in_both_cases(_with_escapes(plain, others), "\\u")
        yield plain.replace("/", "\\/")
        yield json.dumps(plain)[1:-1]  # JSON inside JSON
    units = text.encode("utf-16-be").hex()
    every = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
    yield from _in_both_cases(every, "\\u")
    for written in (html.escape(text), html.escape(text, quote=False)):
        yield written
        yield written.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
        yield written.replace("&#x27;", "&apos;")
    yield "".join(f"&#{ord(character)};" for character in text)
    yield from _in_both_cases("".join(f"&#x{ord(character):x};" for character in text), "&#x")
    yield repr(text)[1:-1]
    yield text.replace('"', '""')
    yield text.replace("'", "''")


def _with_escapes(plain: str, others: str) -> str:
    for character in others:
        if character == '"':
            plain = plain.replace('\\"', "\\u0022")
        else:
            plain = plain.replace(character, f"\\u{ord(character):04x}")
    return plain


def _in_both_cases(escaped: str, mark: str) -> tuple[str, ...]:
    """The text, also with the digits of its escapes in lower and in upper case."""
    if mark not in escaped:
        return (escaped,)
    length = {"%": 2, "\\u": 4, "&#x": 0}[mark]
    first, *parts = escaped.split(mark)
    upper, lower = [first], [first]
    for part in parts:
        end = length or part.find(";")
        upper.append(part[:end].upper() + part[end:])
        lower.append(part[:end].lower() + part[end:])
    return escaped, mark.join(upper), mark.join(lower)
