"""What the vendors' answers themselves hold, and whoever gets the artifact gets with them.

A state is a copy of what an API answered: expressions of a report with the password that its
author has written into them, the e-mail addresses of owners, the hosts of databases. None of it is
in our environment, so no refresh can recognise it. Here it is looked for by its form, in the bytes
of every published state, and told in a line a key: how often, never the value itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bundler.doctor import Finding, Patient
from bundler.manifest import State

# Enough to know what kind of thing a state is, and read in a second or two.
_MOST_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
# What is looked for must lie in one window; windows overlap by this much.
_OVERLAP_BYTES = 1024
_MOST_DISTINCT = 10_000
_SHOWN = 3

# Quotes may be escaped: an expression stands in JSON, which may stand in a JSON string again.
_QUOTE = rb"""(?:\\{0,3}["'])"""
_VALUE = rb"""(?P<value>[^"'\\\s;,&<>{}()$%*]{4,128})"""
_NAMES = (
    rb"pwd|password|passwd|accountkey|sharedaccesskey|client_?secret|secret_?access_?key|"
    rb"private_?key_?passphrase|access_?token|api_?key"
)
# Each needs a cheap word before the costly pattern: most windows have none of them.
_CREDENTIALS = tuple(
    re.compile(pattern)
    for pattern in (
        rb"(?i)(?<![a-z])(?:" + _NAMES + rb")" + _QUOTE + rb"?\s*[=:]\s*" + _QUOTE + rb"?" + _VALUE,
        rb"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^/\s:@\"'\\]{1,64}:(?P<value>[^/\s@\"'\\{}]{3,128})@",
        rb"(?P<value>\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bxox[abprs]-[\w-]{10,72})",
        rb"(?P<value>\beyJ[\w-]{10,500}\.eyJ[\w-]{10,400}\.)",
        rb"(?P<value>-----BEGIN (?:[A-Z]{2,9} )?PRIVATE KEY-----)",
    )
)
_NO_VALUES = re.compile(rb"(?i)none|null|true|false|undefined|string|text|redacted|x+|\.+|env_var")
_EMAIL = re.compile(
    rb"(?<![\w.:/%+-])[A-Za-z0-9._%+-]{1,64}@"
    rb"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.(?!(?:png|jpe?g|svg|gif)\b)[A-Za-z]{2,24}\b"
)
_HOSTS = (
    re.compile(
        rb"(?i)\b[a-z][a-z0-9+.-]{1,20}://(?:[^/@\s\"'\\]{1,200}@)?(?P<host>[a-z0-9.-]{3,253})"
    ),
    re.compile(
        rb"(?i)\b(?:server|host|data source|account)" + _QUOTE + rb"?\s*[=:]\s*" + _QUOTE + rb"?"
        rb"(?:tcp:)?(?P<host>[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,6})"
    ),
    # The first argument of a function, as in Snowflake.Databases("acme.example.com", …)
    re.compile(
        rb"(?i)\(" + _QUOTE + rb"(?P<host>[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,6}\.[a-z]{2,24})"
    ),
)


@dataclass
class Contents:
    """What one state holds, each thing once. credentials: with the first file that has it."""

    credentials: dict[bytes, str] = field(default_factory=dict)
    emails: set[bytes] = field(default_factory=set)
    hosts: set[bytes] = field(default_factory=set)
    whole: bool = True

    def take(self, window: bytes, name: str) -> None:
        for pattern in _CREDENTIALS:
            for found in pattern.finditer(window):
                value = found["value"]
                if not _NO_VALUES.fullmatch(value) and len(self.credentials) < _MOST_DISTINCT:
                    self.credentials.setdefault(value, name)
        for email in _EMAIL.findall(window):
            _keep(self.emails, email)
        for pattern in _HOSTS:
            for found in pattern.finditer(window):
                _keep(self.hosts, found["host"].strip(b"."))


def _keep(known: set[bytes], value: bytes) -> None:
    if len(known) < _MOST_DISTINCT:
        known.add(value.lower())


def contents(patient: Patient) -> Iterator[Finding]:
    """A line a key for every published state; the check of the state says whether it verifies."""
    from bundler.artifacts.directory import DirectoryArtifact
    from bundler.bundle import MANIFEST_NAME
    from bundler.verify import verify

    findings = []
    for place in patient.survey.state_directories:
        directory = patient.survey.root / place
        if not (directory / MANIFEST_NAME).exists():
            continue
        with DirectoryArtifact(directory) as artifact:
            verdict = verify(artifact)
        for found in verdict.directories:
            states = found.manifest.states if found.manifest else ()
            findings += [_finding(state, contents_of(directory, state)) for state in states]
    yield from findings or [Finding("ok", "There is no published state yet to look into.")]


def contents_of(directory: Path, state: State) -> Contents:
    """Reads the files of one state. A file that is not there any more holds nothing."""
    found = Contents()
    left = _MOST_BYTES
    for file in state.files:
        if left <= 0:
            found.whole = False
            break
        try:
            with open(directory / state.path / file.path, "rb") as stream:
                for window in _windows(stream, left):
                    found.take(window, file.path)
        except OSError:
            continue
        found.whole = found.whole and file.size <= left
        left -= file.size
    return found


def _windows(stream: BinaryIO, most: int) -> Iterator[bytes]:
    tail = b""
    while most > 0 and (chunk := stream.read(min(_CHUNK_BYTES, most))):
        most -= len(chunk)
        yield tail + chunk
        tail = (tail + chunk)[-_OVERLAP_BYTES:]


def _finding(state: State, found: Contents) -> Finding:
    told = [
        _count(len(found.credentials), "password or token", "passwords or tokens"),
        _count(len(found.emails), "e-mail address", "e-mail addresses"),
        _hosts(found.hosts),
    ]
    holds = ", ".join(filter(None, told)) or "no password, e-mail address or host"
    cut = "" if found.whole else f" (in its first {_MOST_BYTES // 1024 // 1024} MB)"
    what = f"{state.key} holds {holds}{cut}."
    if not found.credentials:
        return Finding("ok", what)
    files = sorted(set(found.credentials.values()))
    named = ", ".join(files[:_SHOWN]) + (" …" if len(files) > _SHOWN else "")
    return Finding(
        "warn",
        what,
        f"They stand in what the API answered ({named}), and ship to whoever gets the artifact.",
        "Take them out of the vendor's objects (use a stored connection), and renew them.",
    )


def _hosts(hosts: set[bytes]) -> str:
    names = sorted(host.decode("ascii", "replace") for host in hosts)
    shown = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
    counted = _count(len(names), "host", "hosts")
    return f"{counted} ({shown})" if names else ""


def _count(number: int, one: str, many: str) -> str:
    if not number:
        return ""
    more = "more than " if number >= _MOST_DISTINCT else ""
    return f"{more}{number} {one if number == 1 else many}"
