"""Failed requests that are normal for a vendor: allowed by default, except for what existed before.

A connector of Fivetran that has never been synced has no schemas: 404. So has one whose schemas
were lost, but that one is in the last state. Only the first case is normal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bundler.refresh.outcome.exchanges import Exchange, is_expected
from bundler.system.wording import counted

_CHUNK_BYTES = 1024 * 1024


class Expected(msgspec.Struct, frozen=True):
    """pattern: ``METHOD HOST/PATH STATUS`` as in ``allow-http``. why: the meaning of such an
    answer."""

    pattern: str
    why: str


def notes(
    exchanges: Sequence[Exchange], normal: Sequence[Expected], allowed: Sequence[str]
) -> Iterator[str]:
    """A message for each default that was applied. allowed: the project's own, which are not
    reported."""
    for expected in normal:
        count = len(_of(expected, exchanges, allowed))
        if count:
            yield f"{counted(count, 'time')} {expected.pattern}: {expected.why}"


def lost(
    exchanges: Sequence[Exchange],
    normal: Sequence[Expected],
    allowed: Sequence[str],
    before: Path,
) -> Exchange | None:
    """The first of them that concerns something in the previous state.

    before: that state's file. allowed: what the project itself expects, whatever it concerns.
    Raises `OSError`.
    """
    about = {
        f'"{name}"'.encode(): exchange
        for expected in normal
        for exchange in _of(expected, exchanges, allowed)
        for name in _names(expected, exchange)
    }
    if not about or not before.is_file():
        return None
    overlap = max(map(len, about))
    with open(before, "rb") as stream:
        tail = b""
        while chunk := stream.read(_CHUNK_BYTES):
            window = tail + chunk
            found = next((name for name in about if name in window), None)
            if found is not None:
                return about[found]
            tail = window[-overlap:]
    return None


def _of(
    expected: Expected, exchanges: Sequence[Exchange], allowed: Sequence[str]
) -> list[Exchange]:
    return [
        exchange
        for exchange in exchanges
        if is_expected(exchange, [expected.pattern]) and not is_expected(exchange, allowed)
    ]


def _names(expected: Expected, exchange: Exchange) -> tuple[str, ...]:
    """What the stars of the pattern match in a request's path."""
    where = expected.pattern.split(" ")[1]
    path = "/" + where.partition("/")[2]
    found = re.fullmatch(re.escape(path).replace(r"\*", "(.*)"), urlsplit(exchange.url).path)
    return found.groups() if found else ()
