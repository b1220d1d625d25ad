"""What a Dockerfile and a ``.dockerignore`` say, read as the engines read them.

A Dockerfile is a sequence of *instructions*: a word, its arguments, over as many lines as end in
the escape character, without the comment lines in between. ``.dockerignore`` is a list of
patterns; the last one that matches a path, or a directory above it, decides.

https://docs.docker.com/reference/dockerfile/ and
https://docs.docker.com/build/concepts/context/#dockerignore-files
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_HEREDOC = re.compile(r"<<-?\s*[\"']?(\w+)[\"']?")
_TAKES_HEREDOCS = ("RUN", "COPY", "ADD")


@dataclass(frozen=True)
class Instruction:
    """line: the number of its first line, from 1. word: in capitals. arguments: on one line.

    body: the lines of its here-documents.
    """

    line: int
    word: str
    arguments: str
    body: str = ""

    @property
    def flags(self) -> dict[str, str]:
        """``--name=value`` before the first operand."""
        return dict(part[2:].partition("=")[::2] for part in self._words() if part.startswith("--"))

    @property
    def operands(self) -> tuple[str, ...]:
        """What follows the flags: for COPY and ADD the sources, then the destination."""
        rest = self.arguments
        while match := re.match(r"--\S+\s+", rest):
            rest = rest[match.end() :]
        if rest.lstrip().startswith("["):
            try:
                return tuple(map(str, json.loads(rest)))
            except ValueError:
                pass
        return tuple(rest.split())

    def _words(self) -> Iterator[str]:
        for word in self.arguments.split():
            if not word.startswith("--"):
                return
            yield word


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile, in order."""
    lines = text.splitlines()
    escape = _escape_character(lines)
    at = 0
    while at < len(lines):
        start = at
        logical, at = _logical_line(lines, at, escape)
        word, _, arguments = logical.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        body: list[str] = []
        if word.upper() in _TAKES_HEREDOCS:
            for end in _HEREDOC.findall(arguments):
                while at < len(lines) and lines[at].strip("\t") != end:
                    body.append(lines[at])
                    at += 1
                at += 1
        yield Instruction(start + 1, word.upper(), arguments.strip(), "\n".join(body))


def _escape_character(lines: Sequence[str]) -> str:
    for line in lines:
        match = re.match(r"#\s*(\w+)\s*=\s*(\S+)\s*$", line)
        if match is None:
            break
        if match.group(1).lower() == "escape":
            return match.group(2)
    return "\\"


def _logical_line(lines: Sequence[str], at: int, escape: str) -> tuple[str, int]:
    """The line that begins here with its continuations, and where the next one begins."""
    if lines[at].lstrip().startswith("#"):
        return lines[at], at + 1
    parts: list[str] = []
    while at < len(lines):
        line = lines[at]
        at += 1
        # Inside a continued instruction comment lines and empty ones do not end it.
        if parts and (not line.strip() or line.lstrip().startswith("#")):
            continue
        if not line.rstrip().endswith(escape):
            parts.append(line)
            break
        parts.append(line.rstrip().removesuffix(escape))
    return " ".join(part.strip() for part in parts), at


class IgnoreRules:
    """The patterns of a ``.dockerignore``."""

    def __init__(self, text: str) -> None:
        self._rules = [
            (line.startswith("!"), _regular_expression(line.removeprefix("!").strip()))
            for line in map(str.strip, text.removeprefix("\ufeff").splitlines())
            if line and not line.startswith("#")
        ]

    def ignores(self, path: str) -> bool:
        """Whether a path (POSIX, relative to the context) is left out of the build's context."""
        parts = path.split("/")
        prefixes = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        ignored = False
        for exception, pattern in self._rules:
            if any(pattern.fullmatch(prefix) for prefix in prefixes):
                ignored = not exception
        return ignored


def _regular_expression(pattern: str) -> re.Pattern[str]:
    """A pattern of Go's ``filepath.Match`` with ``**`` for any number of directories."""
    cleaned = "/".join(part for part in pattern.split("/") if part not in ("", "."))
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]*\]|\\.|.", cleaned)
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meanings.get(token) or _literal(token) for token in tokens))


def _literal(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token
    return re.escape(token.removeprefix("\\") if len(token) > 1 else token)
