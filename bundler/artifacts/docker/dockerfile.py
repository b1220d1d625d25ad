"""A Dockerfile as far as we read it: its instructions, with the line that each begins in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from bundler.bundle import STATE_DIRECTORY
from bundler.errors import ConfigurationError

_DIRECTIVE = re.compile(r"^#\s*escape\s*=\s*(\S)\s*$", re.IGNORECASE)
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\1")
_REFRESH = re.compile(r"\brefresh-defs-state\b|\bstate-bundler\s+refresh\b")


@dataclass(frozen=True)
class Instruction:
    line: int
    name: str
    text: str


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile, continued lines joined, comments and heredocs left out."""
    lines = text.splitlines()
    escape = "`" if lines and (match := _DIRECTIVE.match(lines[0])) and match[1] == "`" else "\\"
    position = 0
    while position < len(lines):
        start = position
        whole = ""
        while position < len(lines):
            line = lines[position].strip()
            position += 1
            if line.startswith("#") or (whole and not line):
                continue
            whole += line.removesuffix(escape)
            if not line.endswith(escape):
                break
        if not whole:
            continue
        for _, mark in _HEREDOC.findall(whole):
            while position < len(lines) and lines[position].strip() != mark:
                position += 1
            position += 1
        name, _, rest = whole.partition(" ")
        yield Instruction(start + 1, name.upper(), rest.strip())


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
    """A sentence for each RUN that refreshes state, which the build's cache would skip."""
    for found in instructions(text):
        if found.name == "RUN" and _REFRESH.search(found.text):
            yield (
                f"{name}:{found.line} refreshes state in a RUN. Docker caches the step: the next "
                "build would ship the old state and succeed with the API down."
            )
