"""Docker's ignore rules: which files of a folder belong to the build context.

A rule is a path relative to the context with Go's wildcards (``*``, ``?``, ``[a-z]``, ``**`` for
any number of folders). It also matches everything below its match. The last matching rule decides;
a rule that begins with ``!`` includes again. See https://docs.docker.com/build/concepts/context/.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import ConfigurationError, InputOutputError
from bundler.system.git_directory import read_regular
from bundler.system.reading import reading

IGNORE_FILE = ".dockerignore"
# As BuildKit's own matcher reads a pattern.
_WORD = re.compile(r"\*\*/?|\[.[^]]*\]|\\.|.", re.DOTALL)
_ANY = {"*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True)
class DockerIgnoreRule:
    pattern: re.Pattern[str]
    exclude: bool
    text: str


def parse(text: str) -> list[DockerIgnoreRule]:
    """Parses rules. Raises `ConfigurationError` for a pattern that docker rejects."""
    rules = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if line.startswith("#"):
            continue
        pattern = line.strip()
        exclude = not pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip()
        if not pattern:
            continue
        cleaned = posixpath.normpath(pattern).lstrip("/")
        if cleaned == ".":
            continue
        if (matcher := compiled(cleaned)) is None:
            raise ConfigurationError(
                f"Line {number} of the ignore file is not a valid pattern: {cleaned}.",
                hint="A [ requires a ], and a \\ a character after it.",
            )
        rules.append(DockerIgnoreRule(matcher, exclude, cleaned))
    return rules


def compiled(pattern: str) -> re.Pattern[str] | None:
    """A single pattern, such as the source of a COPY; None if docker rejects it."""

    def translated(found: re.Match[str]) -> str:
        word = found[0]
        if word.startswith("**"):
            return ".*" if found.end() == len(pattern) else "(?:.*/)?"
        if word in _ANY:
            return _ANY[word]
        if word in ("[", "\\"):
            raise re.error("nothing follows")
        if word.startswith("["):
            return word.replace("\\", "\\\\")
        return re.escape(word.removeprefix("\\"))

    try:
        return re.compile(_WORD.sub(translated, pattern), re.DOTALL)
    except re.error:
        return None


def excluded(path: str, rules: Sequence[DockerIgnoreRule]) -> bool:
    """Whether a path (relative, POSIX) is excluded from the context."""
    above = list(_above(path))
    verdict = False
    for rule in rules:
        if rule.exclude == verdict:
            continue
        if any(rule.pattern.fullmatch(candidate) for candidate in above):
            verdict = rule.exclude
    return verdict


def _above(path: str) -> Iterator[str]:
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        yield "/".join(parts[:end])


def walk(root: Path, rules: Sequence[DockerIgnoreRule]) -> Iterator[tuple[str, Path]]:
    """The contents of the context below a folder, sorted: relative path and path on disk.

    Raises `InputOutputError` for a folder that cannot be read.
    """
    takes_in = [rule for rule in rules if not rule.exclude]
    pending = [""]
    while pending:
        below = pending.pop()
        with reading(root / below), os.scandir(root / below) as listing:
            children = sorted(listing, key=lambda child: child.name, reverse=True)
        here = []
        for child in children:
            path = f"{below}/{child.name}" if below else child.name
            out = excluded(path, rules)
            if child.is_dir(follow_symlinks=False) and (not out or may_hold(path, takes_in)):
                pending.append(path)
            if not out:
                here.append((path, root / path))
        yield from reversed(here)


def may_hold(folder: str, takes_in: Iterable[DockerIgnoreRule]) -> bool:
    """Whether a rule could include something below an excluded folder."""
    depth = folder.split("/")
    for rule in takes_in:
        parts = rule.text.split("/")
        if "**" in rule.text or "*" in parts[0] or parts[: len(depth)] == depth[: len(parts)]:
            return True
        if any(character in rule.text for character in "*?[\\"):
            return True
    return False


def ignore_file_of(context: Path, dockerfile: Path | None) -> Path:
    """The file with the effective rules: the one next to the Dockerfile, else the context's, which
    may be missing.

    dockerfile: None for the classic builder, which only reads the context's.
    """
    if dockerfile is not None:
        own = dockerfile.with_name(dockerfile.name + IGNORE_FILE)
        if os.path.exists(own):
            return own
    return context / IGNORE_FILE


def effective(context: Path, dockerfile: Path | None) -> str:
    """The text of the rules that hold, as `ignore_file_of` says."""
    return rules_in(ignore_file_of(context, dockerfile))


def rules_in(file: Path) -> str:
    """The text of an ignore file, with names as Python decodes paths; empty if it is missing."""
    try:
        with reading(file), suppress(FileNotFoundError):
            raw = read_regular(os.fsencode(file))
            raw.decode()
            return os.fsdecode(raw)
    except UnicodeDecodeError as error:
        raise InputOutputError(f"{file} cannot be read: it is not UTF-8.") from error
    return ""


def quoted(path: str) -> str:
    """A rule that matches exactly this path, but any character for what no rule can hold: a
    newline, and bytes that are not UTF-8."""
    text = os.fsencode(path).decode("utf-8", "surrogateescape")
    pattern = re.sub(r"([*?\[\]\\]|^[#!])", r"\\\1", text)
    pattern = re.sub(r"[\n\udc80-\udcff]", "?", pattern)
    pattern = re.sub(r"^\s|\s\Z", r"[\g<0>]", pattern)  # blanks around a rule do not count
    return os.fsdecode(pattern.encode())
