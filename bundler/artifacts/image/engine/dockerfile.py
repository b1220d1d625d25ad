"""Parses Dockerfiles into instructions and the line that each begins on."""

from __future__ import annotations

import itertools
import json
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bundler.artifacts.image.image_program import expanded
from bundler.errors import ConfigurationError
from bundler.state.bundle import STATE_DIRECTORY

_DIRECTIVE = re.compile(r"#\s*(?P<name>[a-zA-Z][a-zA-Z0-9]*)\s*=\s*(?P<value>.+?)\s*$")
_TAKES_HEREDOCS = re.compile(r"\s*(ONBUILD\s+)?(RUN|COPY|ADD)\s", re.IGNORECASE)
# As BuildKit splits a line: a word keeps its quotes, and may have blanks after a << at its start.
_WORD = re.compile(r"""(?:\d*<<\s*)?(?:[^\s'"\\]|\\.|'[^']*'|"(?:\\.|[^"\\])*")+""")
_HEREDOC = re.compile(r"\d*<<(?P<dash>-?)\s*(?P<mark>[^<]*)")
# Options that only BuildKit supports.
_MODERN = re.compile(
    r"(--\S+\s+)*--(mount|network|security|link|chmod|checksum|keep-git-dir|exclude|parents)\b"
)
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
    """The instructions of a Dockerfile, with continued lines joined and without comments."""
    lines = _lines(text)
    escape = _directives(lines).get("escape", "\\")
    at = 0
    while at < len(lines):
        start = at
        whole, at = _logical_line(lines, at, escape)
        name, rest = [*whole.split(None, 1), "", ""][:2]
        if not name or name.startswith("#"):
            continue
        body: list[str] = []
        for has_tabs, mark in _heredocs(whole):
            while at < len(lines) and (lines[at].lstrip("\t") if has_tabs else lines[at]) != mark:
                body.append(lines[at])
                at += 1
            at += 1
        yield Instruction(start + 1, name.upper(), rest.strip(), "\n".join(body))


def _lines(text: str) -> list[str]:
    return [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]


def _heredocs(line: str) -> Iterator[tuple[bool, str]]:
    """For each heredoc of an instruction, whether tabs may precede its last line, and that line."""
    if _TAKES_HEREDOCS.match(line) is None or _WORD.sub("", line).strip():
        return  # BuildKit does not look for heredocs in a line with an unclosed quote
    for found in map(_HEREDOC.fullmatch, _WORD.findall(line)):
        if found is not None and found["mark"]:
            yield bool(found["dash"]), words_of(found["mark"])[0]


def _directives(lines: Sequence[str]) -> dict[str, str]:
    """Directives are comments above everything else; the first other line ends them."""
    matches = (_DIRECTIVE.match(line.strip()) for line in lines)
    found = itertools.takewhile(lambda match: match is not None, matches)
    return {match["name"].lower(): match["value"] for match in found if match is not None}


def _logical_line(lines: Sequence[str], at: int, escape: str) -> tuple[str, int]:
    """The line that begins here with its continuations, and where the next one begins."""
    if lines[at].lstrip().startswith("#"):
        return lines[at], at + 1
    parts: list[str] = []
    continued = re.compile(rf"(?<!{re.escape(escape)}){re.escape(escape)}[ \t]*$")
    while at < len(lines):
        line = lines[at]
        at += 1
        # Inside a continued instruction, comments and empty lines do not end it.
        if parts and (not line.strip() or line.lstrip().startswith("#")):
            continue
        parts.append(continued.sub("", line))
        if parts[-1] == line:
            break
    return "".join(parts), at  # a word may continue on the next line


def context_paths(text: str, build_args: Mapping[str, str]) -> Iterator[tuple[int, str, bool]]:
    """The paths in the context that the Dockerfile names: line, path or pattern, whether it is
    copied. An empty path is the whole context.

    An unknown variable matches anything in its folder. A bind mount is read, not copied.
    """
    known: dict[str, str] = {}
    for found in instructions(text):
        if found.name in ("ARG", "ENV"):
            pairs = (word.partition("=") for word in words_of(found.text))
            known.update({name: value for name, equals, value in pairs if equals})
        for source in context_sources(found):
            values = {**known, **build_args}
            path = expanded(source, values, "*")
            yield found.line, posixpath.normpath(f"/{path}").lstrip("/"), found.name != "RUN"


def copied_paths(text: str, build_args: Mapping[str, str]) -> Iterator[str]:
    """What is copied from the context, as in `context_paths`."""
    return (path for _, path, is_copy in context_paths(text, build_args) if is_copy)


def context_sources(found: Instruction) -> list[str]:
    """The sources in the context of a COPY or ADD, or of a RUN's bind mounts, as written."""
    if found.name in ("COPY", "ADD"):
        rest = _without_options(found.text)
        if "--from" in found.text.removesuffix(rest):
            return []
        words = _json_words(rest) or words_of(rest)
        elsewhere = re.compile(r".*://|\d*<<|git@")
        return [word for word in words[:-1] if not elsewhere.match(word)]
    return [
        fields.get("source", fields.get("src", ""))
        for fields in _mounts(found)
        if fields.get("type", "bind") == "bind" and "from" not in fields
    ]


def _without_options(text: str) -> str:
    return re.sub(r"(--\S+\s+)*", "", text, count=1)


def _json_words(text: str) -> list[str]:
    try:
        words = json.loads(text)
    except ValueError:
        return []
    return [str(word) for word in words] if isinstance(words, list) else []


def _mounts(found: Instruction) -> Iterator[dict[str, str]]:
    """The fields of each mount of a RUN; options precede everything else."""
    words = found.text.split() if found.name == "RUN" else []
    for word in itertools.takewhile(lambda word: word.startswith("--"), words):
        if word.startswith("--mount="):
            parts = [part.partition("=") for part in word.removeprefix("--mount=").split(",")]
            yield {name: value for name, _, value in parts}


def open_arguments(text: str) -> Iterator[str]:
    """The build arguments without a default."""
    for found in instructions(text):
        if found.name == "ARG":
            yield from (word for word in words_of(found.text) if "=" not in word)


def final_base(text: str, target: str | None, build_args: Mapping[str, str]) -> str:
    """The base of the stage that is built, and of those that it is built on; empty if there is
    none. target: that stage; None for the last one."""
    known: dict[str, str] = {}
    bases: dict[str, str] = {}
    last = ""
    for found in instructions(text):
        if found.name == "ARG" and not bases:
            pairs = (word.partition("=") for word in words_of(found.text))
            known.update({name: value for name, equals, value in pairs if equals})
        elif found.name == "FROM":
            values = {**known, **build_args}
            words = [word for word in words_of(found.text) if not word.startswith("--")]
            base = expanded("".join(words[:1]), values)
            last = "".join(words[2:]).lower() or str(len(bases))
            bases[last] = bases.get(base.lower(), base)
    return bases.get(last if target is None else target.lower(), "")


def environment_of(text: str) -> Iterator[tuple[str, str]]:
    """The variables of an ENV."""
    words = words_of(text)
    if words and "=" not in words[0]:  # the older form: ENV NAME value with spaces
        yield words[0], " ".join(words[1:])
        return
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


def needing_buildkit(text: str) -> Instruction | None:
    """The first instruction that the classic builder rejects or misunderstands."""
    for found in instructions(text):
        if found.name in ("RUN", "COPY", "ADD") and (found.body or _MODERN.match(found.text)):
            return found
    return None


def refuse_copied_state(text: str, name: str) -> None:
    """Raises `ConfigurationError` if the Dockerfile copies a state directory by name.

    The build does not have it, so that new state never invalidates a cached layer.
    """
    for found in instructions(text):
        if found.name not in ("COPY", "ADD") or "--from" in found.text:
            continue
        if STATE_DIRECTORY in found.text:
            where = f"{name}:{found.line}"
            error = ConfigurationError(
                f"{where} copies {_copied(found.text)} into the image.",
                hint="Remove that line: the state is added after the build, as its own layer.",
            )
            error.where = where
            raise error


def _copied(text: str) -> str:
    words = words_of(text)
    return next((word.strip("[],\"'") for word in words if STATE_DIRECTORY in word), text)


def words_of(text: str) -> list[str]:
    """The words of an instruction, without their quotes."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def refreshing(text: str, name: str) -> Iterator[str]:
    """A message for each RUN that makes state, which the build's cache would skip."""
    for found in instructions(text):
        if found.name != "RUN":
            continue
        if command := _REFRESH.search(f"{found.text}\n{found.body}"):
            yield (
                f"{name}:{found.line} creates state in a RUN ({' '.join(command[0].split())}). "
                "Docker caches the step: the next build would ship the old state and succeed even "
                "if the API is down."
            )
