"""Credentials inside URLs: detects and removes them."""

from __future__ import annotations

import re
from urllib.parse import unquote

from bundler.system.secret_names import has_a_secret_name

# Lengths are bounded, so that no text takes long. A password may contain an unescaped slash, a port
# may not. IPv6 addresses have brackets.
_AFTER_USER = r":(?!\d{1,5}(?:[/?#\s\"'<>]|$))(?P<password>[^\s\"'<>]{0,500})"
_USER_INFO = (
    r"(?i)(?P<scheme>(?:(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,40}:)?//)"
    rf"(?P<user>[^\s/?#\"'<>@:\[]{{0,500}})(?:{_AFTER_USER})?@"
)
# ``user:password@host.name``; the dot of the host distinguishes it from an image's
# ``name:tag@sha256:``.
_NO_SCHEME = (
    r"(?i)(?<![\w/.:@%+-])[\w.+-]{1,200}:(?!\d{1,5}@)[^\s/@:\[\]\"'<>]+@(?=[\w-]+\.\w|localhost)"
)
_PARAMETER = r"(?P<name>[?&#;][\w.%~-]*)=(?P<value>[^&#;\s\"'<>\]\\]+)"
_FRAGMENT = r"(?P<address>//[^\s\"'<>#]{1,500}#)(?=[^\s\"'<>]{0,200}\d)[\w.~+/%-]{16,}=*"
_ISSUED = r"gh[a-z]_|github_pat_|glpat-|ATBB"
_HIDDEN = "***"


def has_credentials(text: str) -> bool:
    """Whether a URL in the text has a password, or a token that a git host has issued."""
    return any(
        any(
            found["password"] or re.match(_ISSUED, found["user"])
            for found in re.finditer(_USER_INFO, reading)
        )
        or re.search(_NO_SCHEME, reading)
        for reading in _readings(text)
        if "@" in reading
    )


def without_credentials(text: str) -> str:
    """The text without what may be a credential in its URLs; the same text if there is none.

    Removes every password, the user of an HTTP URL, which is usually a token, and parameters and
    fragments that are named like a secret or look like one.
    """
    for reading in _readings(text):
        hidden = reading
        if "@" in reading:
            hidden = re.sub(_NO_SCHEME, "", re.sub(_USER_INFO, _address, reading))
        hidden = re.sub(_PARAMETER, _parameter, hidden)
        hidden = re.sub(_FRAGMENT, rf"\g<address>{_HIDDEN}", hidden)
        if hidden != reading:
            return hidden
    return text


def _readings(text: str) -> tuple[str, ...]:
    """The text, and its URL-decoded form."""
    if "%" not in text:
        return (text,)
    once = unquote(text)
    return (text, once, unquote(once))


def _address(found: re.Match[str]) -> str:
    is_http = "http" in found["scheme"].lower() or found["scheme"] == "//"
    secret = found["password"] or (found["user"] and is_http) or re.match(_ISSUED, found["user"])
    return found["scheme"] if secret else found[0]


def _parameter(found: re.Match[str]) -> str:
    name = unquote(found["name"][1:])
    return f"{found['name']}={_HIDDEN}" if has_a_secret_name(name) else found[0]
