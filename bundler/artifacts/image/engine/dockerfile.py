"""A Dockerfile as far as we read it: its instructions, with the line that each begins in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bundler.errors import ConfigurationError
from bundler.state.bundle import STATE_DIRECTORY

_DIRECTIVE = re.compile(r"#\s*(?P<name>\w+)\s*=\s*(?P<value>\S+)\s*$")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\1")
_TAKES_HEREDOCS = ("RUN", "COPY", "ADD")
_REFRESH = re.compile(
    r"\brefresh-defs-state\b|\bstate-bundler\s+refresh\b|\bprepare-and-package\b"
    r"|\bdbt\s+(?:\S+\s+)*?(?:parse|compile)\b"
)


@dataclass(frozen=True)
class Instruction:
    """line: where it begins, from 1. name: in capitals. body: the lines of its heredocs."""

    line: int
    name: str
    text: str
    body: str = ""


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile, continued lines joined, comments left out."""
    lines = text.splitlines()
    escape = _escape_character(lines)
    at = 0
    while at < len(lines):
        start = at
        whole, at = _logical_line(lines, at, escape)
        name, _, rest = whole.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        body: list[str] = []
        for _, mark in _HEREDOC.findall(rest) if name.upper() in _TAKES_HEREDOCS else ():
            while at < len(lines) and lines[at].strip("\t") != mark:
                body.append(lines[at])
                at += 1
            at += 1
        yield Instruction(start + 1, name.upper(), rest.strip(), "\n".join(body))


def _escape_character(lines: Sequence[str]) -> str:
    """Directives are comments above everything else; the first other line ends them."""
    for line in lines:
        found = _DIRECTIVE.match(line.strip())
        if found is None:
            break
        if found["name"].lower() == "escape":
            return found["value"]
    return "\\"


def _logical_line(lines: Sequence[str], at: int, escape: str) -> tuple[str, int]:
    """The line that begins here with its continuations, and where the next one begins."""
    if lines[at].lstrip().startswith("#"):
        return lines[at], at + 1
    parts: list[str] = []
    while at < len(lines):
        line = lines[at].rstrip()
        at += 1
        # Inside a continued instruction comment lines and empty ones do not end it.
        if parts and (not line or line.lstrip().startswith("#")):
            continue
        parts.append(line.removesuffix(escape).strip())
        if not line.endswith(escape):
            break
    return " ".join(parts), at


def refuse_copied_state(text: str, name: str) -> None:
    """Raises `ConfigurationError` where the Dockerfile copies a state directory by name.

    The build does not have it, so that new state never invalidates a cached layer.
    """
    for found in instructions(text):
        if found.name not in ("COPY", "ADD") or "--from" in found.text:
            continue
        if STATE_DIRECTORY in found.text:
            raise ConfigurationError(
                f"{name}:{found.line} copies {_copied(found.text)} into the image.",
                hint="Take the line out: the state is put in after the build, as a layer of its "
                "own.",
            )


def _copied(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return next((word.strip("[],\"'") for word in words if STATE_DIRECTORY in word), text)


def refreshing(text: str, name: str) -> Iterator[str]:
    """A sentence for each RUN that makes state, which the build's cache would skip."""
    for found in instructions(text):
        if found.name != "RUN":
            continue
        if command := _REFRESH.search(f"{found.text}\n{found.body}"):
            yield (
                f"{name}:{found.line} makes state in a RUN ({command[0]}). Docker caches the step: "
                "the next build would ship the old state and succeed with the API down."
            )
