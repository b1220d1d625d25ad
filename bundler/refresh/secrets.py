"""Removes the values of secrets from texts, and finds them in states."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cached_property

import msgspec

from bundler.refresh.key_material import redacted
from bundler.refresh.scanning import Scanner
from bundler.refresh.secret_forms import Secret, forms
from bundler.system.url_credentials import without_credentials

# Longer values are searched for by their middle.
_LONGEST_NEEDLE = 256
_MIDDLE = 128
# Patterns are compiled on first use: a successful refresh needs none of these.
_USER_INFO = r"(?i)\b([a-z][a-z0-9+.-]{0,40}://)[^/\s@]{1,500}@"
_QUERY = r"(?i)\b([a-z][a-z0-9+.-]{0,40}://[^\s?#'\"]+)\?[^\s'\"]*"


class Secrets(msgspec.Struct, frozen=True, dict=True):
    """values: variables that are secret as a whole. parts: what is secret in others. settings:
    those of the values that are only secret because they are in ``.env``. A key made of one may
    be shown."""

    values: Mapping[str, str]
    parts: tuple[Secret, ...] = ()
    settings: frozenset[str] = frozenset()

    def redact(self, text: str) -> str:
        """The text without any secret, known form of token, URL user info or query, and without
        control characters."""
        for form, shown in self._shown:
            text = text.replace(form, shown)
        text = redacted(text)
        text = without_credentials(text)
        text = re.sub(_QUERY, r"\1", re.sub(_USER_INFO, r"\1", text))
        return neutralise(text)

    @property
    def longest(self) -> int:
        """The characters of the longest form of a secret."""
        return max((len(form) for form, _ in self._shown), default=0)

    def rest(self, text: str, start: int) -> str:
        """The text from there on, or from the end of a secret that spans this position.

        start: at least `longest`, so that the text contains such a secret completely.
        """
        cut = -1
        while cut < start:
            cut = start
            for form, _ in self._shown:
                at = text.rfind(form, max(0, start - len(form) + 1), start + len(form) - 1)
                start = max(start, at + len(form) if at >= 0 else 0)
        return text[start:]

    def within(self, text: str) -> Secret | None:
        """A secret that the text contains in any of its forms; None if there is none."""
        data = text.encode("utf-8", "surrogateescape")
        return next((found for form, found in self.needles.items() if form in data), None)

    @cached_property
    def needles(self) -> Mapping[bytes, Secret]:
        """What to search for in a state, and whose value it is."""
        found: dict[bytes, Secret] = {}
        for secret in self._longest_first:
            # The padding of base64 is often left off.
            for form in forms(_middle(secret.value.strip().rstrip("="))):
                found.setdefault(form, secret)
        return found

    @cached_property
    def scanner(self) -> Scanner:
        """Searches files for them."""
        return Scanner(self.needles)

    @cached_property
    def _shown(self) -> list[tuple[str, str]]:
        """The replacement of each form."""
        return [
            (form.decode("utf-8", "replace"), f"[{secret.variable}]")
            for secret in self._longest_first
            for form in forms(secret.value)
        ]

    @cached_property
    def _longest_first(self) -> tuple[Secret, ...]:
        """In this order, since one secret may be a part of another."""
        whole = [Secret(name, value, f"the value of {name}") for name, value in self.values.items()]
        return tuple(sorted((*whole, *self.parts), key=lambda item: -len(item.value)))


def _middle(value: str) -> str:
    if len(value) <= _LONGEST_NEEDLE:
        return value
    begin = (len(value) - _MIDDLE) // 2
    return value[begin : begin + _MIDDLE]


def neutralise(text: str) -> str:
    """The text with control characters made visible, so that it cannot steer a terminal."""
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf")
        else repr(character)[1:-1]
        for character in text
    )
