"""Finds sensitive data in the vendors' answers, which everyone who gets the artifact gets, too.

A state is a copy of an API's answers: expressions of a report with a password in them, the e-mail
addresses of owners, the hosts of databases. None of it is in our environment, so no refresh can
recognise it. Here it is searched for by its form, in the bytes of every published state, and
reported in one line per key: how often, never the value itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from bundler.setup.doctor import DoctorContext, Finding
from bundler.state.manifest import State
from bundler.state.statedir import StateDir
from bundler.system.wording import counted

# Enough to tell what a state contains, and read in about a second.
_MOST_BYTES = 32 * 1024 * 1024
_MOST_DISTINCT = 10_000
_SHOWN = 3

# Each pattern is only tried where one of its words occurs, which is fast to find. Quotes may be
# escaped: an expression may be in JSON in a string.
_QUOTE = rb"""(?:\\{0,3}["'])"""
_GIVEN = _QUOTE + rb"?\s{0,8}[=:]\s{0,8}" + _QUOTE + rb"?"
_SECRET_WORDS = (
    *(b"pwd", b"password", b"passwd", b"accountkey", b"sharedaccesskey", b"clientsecret"),
    *(b"client_secret", b"secret_access_key", b"secretaccesskey", b"access_token", b"api_key"),
    *(b"accesstoken", b"apikey", b"private_key_passphrase"),
)
_SECRET_VALUE = re.compile(_GIVEN + rb"""([^"'\\\s;,&<>{}()$%*]{4,128})""")
_NO_VALUES = re.compile(rb"(?i)none|null|true|false|undefined|string|text|redacted|x+|\.+|env_var")
_TOKENS: tuple[tuple[bytes, re.Pattern[bytes]], ...] = (
    (b"AKIA", re.compile(rb"(AKIA[0-9A-Z]{16})\b")),
    (b"gh", re.compile(rb"(gh[pousr]_[A-Za-z0-9]{36})")),
    (b"xox", re.compile(rb"(xox[abprs]-[\w-]{10,72})")),
    (b"eyJ", re.compile(rb"(eyJ[\w-]{10,500}\.eyJ[\w-]{10,400}\.)")),
    (b"-----BEGIN ", re.compile(rb"(-----BEGIN (?:[A-Z]{2,9} )?PRIVATE KEY-----)")),
    (b"://", re.compile(rb"://[^/\s:@\"'\\]{1,64}:([^/\s@\"'\\{}]{3,128})@")),
)
_DOMAIN = re.compile(
    rb"@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.(?!(?:png|jpe?g|svg|gif)\b)[A-Za-z]{2,24}\b"
)
_LOCAL_PART = re.compile(rb"(?<![\w.:/%+-])[A-Za-z0-9._%+-]{1,64}\Z")
_HOST = rb"([A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,6})"
_NAMED = rb"([A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,6}\.[A-Za-z]{2,24})\b"
_HOSTS: tuple[tuple[bytes, re.Pattern[bytes]], ...] = (
    (b"://", re.compile(rb"://(?:[^/@\s\"'\\]{1,200}@)?([A-Za-z0-9.-]{3,253})")),
    *(
        (word, re.compile(rb"(?i)" + re.escape(word) + _GIVEN + rb"(?:tcp:)?" + _HOST))
        for word in (b"server", b"host", b"data source", b"account")
    ),
    # The first argument of a function, as in Snowflake.Databases("acme.example.com", …)
    (b"(", re.compile(rb"\(" + _QUOTE + _NAMED)),
)


@dataclass
class ContentsReport:
    """The findings in one state, without repetitions. credentials: with the first file that
    contains each."""

    credentials: dict[bytes, str] = field(default_factory=dict)
    emails: set[bytes] = field(default_factory=set)
    hosts: set[bytes] = field(default_factory=set)
    whole: bool = True

    def take(self, text: bytes, name: str) -> None:
        lower = text.lower()
        for value in chain(_given(text, lower), _matches(text, text, _TOKENS)):
            if len(self.credentials) < _MOST_DISTINCT:
                self.credentials.setdefault(value, name)
        for email in _emails(text):
            _keep(self.emails, email)
        for host in _matches(text, lower, _HOSTS):
            _keep(self.hosts, host.strip(b"."))


def _places(text: bytes, word: bytes) -> Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + len(word))


def _given(text: bytes, lower: bytes) -> Iterator[bytes]:
    """Values assigned to a word such as ``password``: ``Pwd=…``, ``"password": "…"``."""
    for word in _SECRET_WORDS:
        for place in _places(lower, word):
            before = lower[place - 1 : place]
            found = None if before.isalpha() else _SECRET_VALUE.match(text, place + len(word))
            if found and not _NO_VALUES.fullmatch(found[1]):
                yield found[1]


def _matches(
    text: bytes, folded: bytes, known: tuple[tuple[bytes, re.Pattern[bytes]], ...]
) -> Iterator[bytes]:
    """Matches of patterns at their words. folded: the text in the words' case."""
    for word, pattern in known:
        for place in _places(folded, word):
            found = pattern.match(text, place)
            if found:
                yield found[1]


def _emails(text: bytes) -> Iterator[bytes]:
    for place in _places(text, b"@"):
        domain = _DOMAIN.match(text, place)
        local = _LOCAL_PART.search(text, max(0, place - 65), place) if domain else None
        if domain and local:
            yield local[0] + domain[0]


def _keep(known: set[bytes], value: bytes) -> None:
    if len(known) < _MOST_DISTINCT:
        known.add(value.lower())


def contents(patient: DoctorContext) -> Iterator[Finding]:
    """A line per key for every published state; another check says whether the state is valid."""
    findings = []
    for place in patient.survey.state_directories:
        directory = patient.survey.root / place
        published = StateDir(directory, str(place)).read()
        states = published.manifest.states if published else ()
        findings += [_finding(state, contents_of(directory, state)) for state in states]
    yield from findings or [Finding("ok", "There is no published state to inspect yet.")]


def contents_of(directory: Path, state: State) -> ContentsReport:
    """The findings in the files of one state. A removed file contains nothing."""
    found = ContentsReport()
    left = _MOST_BYTES
    for file in state.files:
        if left <= 0:
            found.whole = False
            break
        try:
            with open(directory / state.path / file.path, "rb") as stream:
                found.take(stream.read(left), file.path)
        except OSError:
            continue
        found.whole = found.whole and file.size <= left
        left -= file.size
    return found


def _finding(state: State, found: ContentsReport) -> Finding:
    told = [
        _count(len(found.credentials), "password or token", "passwords or tokens"),
        _count(len(found.emails), "e-mail address", "e-mail addresses"),
        _hosts(found.hosts),
    ]
    holds = ", ".join(filter(None, told)) or "no password, e-mail address or host"
    cut = "" if found.whole else f" (in its first {_MOST_BYTES // 1024 // 1024} MB)"
    what = f"{state.key} contains {holds}{cut}."
    if not found.credentials:
        return Finding("ok", what)
    files = sorted(set(found.credentials.values()))
    named = ", ".join(files[:_SHOWN]) + (" …" if len(files) > _SHOWN else "")
    return Finding(
        "warn",
        what,
        f"They are part of the API's response ({named}), and ship to everyone who gets the "
        "artifact.",
        "Remove them from the vendor's objects (use a stored connection) and rotate them.",
    )


def _hosts(hosts: set[bytes]) -> str:
    names = sorted(host.decode("ascii", "replace") for host in hosts)
    shown = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
    return f"{_count(len(names), 'host', 'hosts')} ({shown})" if names else ""


def _count(number: int, one: str, many: str) -> str:
    if not number:
        return ""
    more = "more than " if number >= _MOST_DISTINCT else ""
    return f"{more}{counted(number, one, many)}"
