"""Which environment variables are secret, and keeping their values out of texts and states."""

from __future__ import annotations

import base64
import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, quote_plus

import msgspec

_TELLING = ("TOKEN", "SECRET", "PASSWORD", "KEY", "CREDENTIAL")
# A shorter value stands in a text by chance.
_SHORTEST_SECRET_BYTES = 8
_CHUNK_BYTES = 1024 * 1024
# Patterns are compiled where they are first used: a refresh that goes well needs one of these.
_SETTING = r"(?i)^([a-z][a-z0-9+.-]*://[^@?\s]*|[~.]{0,2}/.*|[a-z][a-z_-]*|[\d.:]+)$"
_USER_INFO = r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@]+@"
# A password, or a token of a git host alone; a name alone says only who asks.
_CREDENTIALS = (
    r"(?i)\b[a-z][a-z0-9+.-]*://([^/\s@:]*:[^/\s@]+|(gh[a-z]_|github_pat_|glpat-|ATBB)[^/\s@]+)@"
)
_QUERY = r"(?i)\b([a-z][a-z0-9+.-]*://[^\s?#'\"]+)\?[^\s'\"]*"


class Secrets(msgspec.Struct, frozen=True):
    """Secret values by the name of their variable."""

    values: Mapping[str, str]

    def redact(self, text: str) -> str:
        """The text without any secret, URL user info or query, and without control characters."""
        for name, value in self._longest_first():
            for form in _text_forms(value):
                text = text.replace(form, f"[{name}]")
        text = re.sub(_QUERY, r"\1", re.sub(_USER_INFO, r"\1", text))
        return neutralise(text)

    def find(self, path: Path, others: Mapping[str, bytes] | None = None) -> str | None:
        """The name of a variable whose value stands in this file, in any of its forms.

        others: further bytes to look for, by the name to return for them.
        Raises `OSError`.
        """
        needles = [(name, form) for name, value in self._longest_first() for form in _forms(value)]
        needles += (others or {}).items()
        if not needles:
            return None
        overlap = max(len(form) for _, form in needles) - 1
        with open(path, "rb") as stream:
            for window in _windows(stream, overlap):
                for name, form in needles:
                    if form in window:
                        return name
        return None

    def _longest_first(self) -> list[tuple[str, str]]:
        return sorted(self.values.items(), key=lambda item: len(item[1]), reverse=True)


def collect(
    environment: Mapping[str, str],
    *,
    named: Collection[str] = (),
    from_file: Collection[str] = (),
    excluded: Collection[str] = (),
) -> Secrets:
    """The secrets of an environment.

    named: variables that the configuration calls secret. from_file: those that ``.env`` sets;
    there, a URL without credentials, a path or a word is a setting and no secret.
    """

    def is_secret(name: str, value: str) -> bool:
        if name in named:
            return True
        if has_a_secret_name(name):
            return not os.path.exists(value)  # a file's name is none
        return name in from_file and not re.match(_SETTING, value)

    return Secrets(
        {
            name: value
            for name, value in environment.items()
            if name not in excluded
            and len(value.encode("utf-8", "surrogateescape")) >= _SHORTEST_SECRET_BYTES
            and is_secret(name, value)
        }
    )


def has_a_secret_name(name: str) -> bool:
    """Whether a variable's name says that its value is secret."""
    return any(word in name.upper() for word in _TELLING)


def has_credentials(text: str) -> bool:
    """Whether a URL in the text has a password, or a token that a git host has issued."""
    return re.search(_CREDENTIALS, text) is not None


def neutralise(text: str) -> str:
    """The text with control characters made visible, so that it cannot steer a terminal."""
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf")
        else repr(character)[1:-1]
        for character in text
    )


def _windows(stream: BinaryIO, overlap: int) -> Iterator[bytes]:
    """The whole stream in pieces, each beginning with the end of the one before."""
    tail = b""
    while chunk := stream.read(_CHUNK_BYTES):
        window = tail + chunk
        yield window
        tail = window[-overlap:] if overlap else b""


def _text_forms(value: str) -> set[str]:
    return {form.decode("utf-8", "replace") for form in _forms(value)}


def _forms(value: str) -> set[bytes]:
    """The value raw and as base64, URL and JSON write it."""
    raw = value.encode("utf-8", "surrogateescape")
    forms = {raw}
    for escaped in (quote(raw, safe=""), quote_plus(raw), quote(raw)):
        forms |= {escaped.encode(), re.sub("%..", _lower, escaped).encode()}
    text = raw.decode("utf-8", "replace")
    for ascii_only in (True, False):
        encoded = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        forms |= {encoded.encode(), encoded.replace("/", "\\/").encode()}
    return forms | set(_base64_forms(raw))


def _lower(found: re.Match[str]) -> str:
    return found[0].lower()


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """What base64 makes of the value wherever it stands in what is encoded.

    At each of the three offsets the first and last characters also hold bits of the neighbours;
    they are left away.
    """
    for offset in range(3):
        padded = base64.b64encode(b"\0" * offset + raw)
        first = (0, 2, 3)[offset]
        whole = (offset + len(raw)) * 8 // 6
        core = padded[first:whole]
        yield core
        yield core.translate(bytes.maketrans(b"+/", b"-_"))
