"""Parses Dockerfiles into instructions and the line that each begins on."""

from __future__ import annotations

import itertools
import json
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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


def syntax_of(text: str) -> str | None:
    """The frontend that a Dockerfile requires; None for the builder's own."""
    return _directives(_lines(text)).get("syntax")


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
            path = expanded(source, lambda name: values.get(name, ""), "*")  # noqa: B023
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
        for fields in mounts(found)
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


def mounts(found: Instruction) -> Iterator[dict[str, str]]:
    """The fields of each mount of a RUN."""
    for word in options_of(found) if found.name == "RUN" else ():
        if word.startswith("--mount="):
            parts = [part.partition("=") for part in word.removeprefix("--mount=").split(",")]
            yield {name: value for name, _, value in parts}


def options_of(found: Instruction) -> Iterator[str]:
    """The options of an instruction, which precede everything else."""
    return itertools.takewhile(lambda word: word.startswith("--"), found.text.split())


# What BuildKit sets by itself, and buildx by the environment: the default of an ARG may not hold.
_SET_BY_BUILDER = re.compile(
    r"(TARGET|BUILD)(PLATFORM|OS|ARCH|VARIANT)|TARGETSTAGE|SOURCE_DATE_EPOCH|(?i:\w+_PROXY)"
)


def is_set_by_builder(name: str) -> bool:
    """Whether a build argument may have a value that neither the Dockerfile nor the user gives."""
    return _SET_BY_BUILDER.fullmatch(name) is not None


_VARIABLE = re.compile(
    r"\$(?:\{(\w+)(?::?([-+?])([^${}]*)|([^\w$}][^$}]*))?\}|(\w+))"  # the fourth: any other form
)
_MAX_NESTED = 4


def expanded(text: str, value: Callable[[str], str | None], unknown: str | None = None) -> str:
    """The text with its variables replaced, as Dockerfiles and Compose write them.

    value: of a variable; empty if it has none, None if only the build knows. unknown: what replaces
    a variable without a value or default, or in another form; its name by default.
    """

    def replaced(found: re.Match[str]) -> str:
        name, operator, word, other = found[1] or found[5], found[2], found[3], found[4]
        known = None if other else value(name)
        if known is not None and operator == "+":
            return known and word
        if known == "" and operator == "-":
            return word
        return known or (f"${{{name}}}" if unknown is None else unknown)

    for _ in range(_MAX_NESTED):  # inner ones first
        text = _VARIABLE.sub(replaced, text)
    return text


def open_arguments(text: str) -> Iterator[str]:
    """The build arguments without a default."""
    for found in instructions(text):
        if found.name == "ARG":
            yield from (word for word in words_of(found.text) if "=" not in word)


@dataclass(frozen=True)
class Stage:
    """name: in lower case; its number if it has none. base: what FROM names; empty if only the
    build knows."""

    line: int
    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)


def stages(text: str, build_args: Mapping[str, str]) -> list[Stage]:
    """The stages of a Dockerfile; each begins with a FROM."""
    shared: dict[str, str | None] = {}
    found: list[Stage] = []
    for each in instructions(text):
        if each.name == "FROM":
            words = [word for word in words_of(each.text) if not word.startswith("--")]
            base = substituted(words[0], shared, all_known=True) if words else None
            named = words[2:] if [word.lower() for word in words[1:2]] == ["as"] else []
            found.append(Stage(each.line, "".join(named).lower() or str(len(found)), base or ""))
        elif found:
            found[-1].instructions.append(each)
        elif each.name == "ARG":
            for name, equals, default in (word.partition("=") for word in words_of(each.text)):
                if name in build_args:
                    shared[name] = build_args[name]
                elif equals:
                    value = substituted(default, shared, all_known=True)
                    shared[name] = None if is_set_by_builder(name) else value
    return found


def final_stage(
    text: str, target: str | None, build_args: Mapping[str, str]
) -> list[Instruction] | None:
    """The instructions that make the image, including those of the stages that it is built on;
    first the FROM, with only the base's name. None if the base is unknown. target: the stage
    that is built; None for the last one."""
    made: dict[str, list[Instruction]] = {}
    last = ""
    for stage in stages(text, build_args):
        base = made.get(stage.base.lower(), [Instruction(stage.line, "FROM", stage.base)])
        last = stage.name
        made[last] = [*base, *stage.instructions]
    found = made.get(last if target is None else target.lower())
    return found if found and found[0].text else None


def variables_after(
    found: Instruction, values: Mapping[str, str | None]
) -> Mapping[str, str | None]:
    """The variables after an instruction; None for one that only the build knows.

    An ARG is never certain: builders disagree whether it or an ENV of the base wins.
    """
    if found.name == "ARG":
        names = (word.partition("=")[0] for word in words_of(found.text))
        return {**values, **dict.fromkeys(names)}
    if found.name == "ENV":
        new = {name: substituted(text, values) for name, text in environment_of(found.text)}
        return {**values, **new}
    return values


def image_settings(config: Mapping[str, Any], stage: Sequence[Instruction]) -> dict[str, Any]:
    """The ``config`` object of an image after the instructions of a stage.

    config: of its base. A variable whose value the environment does not define stays as written:
    see `is_open`.
    """
    made = dict(config)
    values = _environment(config)
    for found in stage:
        if found.name == "WORKDIR":
            folder = _known(" ".join(words_of(found.text)), values)
            made["WorkingDir"] = posixpath.join(made.get("WorkingDir") or "/", folder)
        elif found.name == "ENV":
            pairs = environment_of(found.text)
            new = [f"{name}={_known(value, values)}" for name, value in pairs]
            made["Env"] = [*(made.get("Env") or ()), *new]
        elif found.name == "USER":
            made["User"] = _known(" ".join(words_of(found.text)), values)
        elif found.name == "VOLUME":
            words = _json_words(found.text) or words_of(found.text)
            paths: dict[str, Any] = {_known(word, values): {} for word in words}
            made["Volumes"] = {**(made.get("Volumes") or {}), **paths}
        elif found.name in ("CMD", "ENTRYPOINT"):
            made["Cmd"] = None if found.name == "ENTRYPOINT" else made.get("Cmd")
            words = _json_words(found.text)
            is_shell = not words and "".join(found.text.split()) != "[]"
            made[found.name.capitalize()] = ["/bin/sh", "-c", found.text] if is_shell else words
        values = variables_after(found, values)
    return made


def _environment(config: Mapping[str, Any]) -> Mapping[str, str | None]:
    return dict(entry.partition("=")[::2] for entry in config.get("Env") or ())


def additions(config: Mapping[str, Any], stage: Sequence[Instruction]) -> list[str] | None:
    """At or below which paths the instructions of a stage add files; None if it may be any path.

    config: of its base.
    """
    copied: list[str] = []
    folders: list[str] = []
    values = _environment(config)
    for number, found in enumerate(stage):
        if found.name in ("RUN", "ONBUILD"):
            return None
        settings = image_settings(config, stage[: number + 1])
        folder = settings.get("WorkingDir") or "/"
        if found.name == "WORKDIR":
            folders.append(folder)
        elif found.name in ("COPY", "ADD"):
            words = _json_words(_without_options(found.text)) or words_of(found.text)
            if not words:
                return None
            path = posixpath.normpath(posixpath.join(folder, _known(words[-1], values)))
            if any(path.startswith(f"{above.rstrip('/')}/") for above in copied):
                return None  # by way of a link that was copied
            copied.append(path)
        values = variables_after(found, values)
    places = [*copied, *map(posixpath.normpath, folders)]
    return None if any("$" in place for place in places) else places


def _known(text: str, values: Mapping[str, str | None]) -> str:
    """Replaces variables; returns the text unchanged if one of them may be an ARG's."""
    value = substituted(text, values)
    return text if value is None else value


def is_open(settings: Mapping[str, Any]) -> bool:
    """Whether a result of `image_settings` still has a variable that only the build knows."""
    names = ("WorkingDir", "Env", "User", "Volumes")
    return any("$" in str(settings.get(name)) for name in names)


def environment_of(text: str) -> Iterator[tuple[str, str]]:
    """The variables of an ENV."""
    words = words_of(text)
    if words and "=" not in words[0]:  # the older form: ENV NAME value with spaces
        yield words[0], " ".join(words[1:])
        return
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


# Escapes, ``${A-b}``, for which an empty value is one, and ``${A#b}``.
_UNSUPPORTED = re.compile(r"\\|\$\{\w+(?![\w}]|:[-+?])")


def substituted(
    text: str, values: Mapping[str, str | None], *, all_known: bool = False
) -> str | None:
    """The text with its variables replaced; None if one is unknown, or has an unsupported form.

    values: None for a variable whose value is unknown. all_known: whether a variable without a
    value is unset, so that its default applies.
    """

    def value(name: str) -> str | None:
        is_unset = name not in values and all_known and not is_set_by_builder(name)
        return "" if is_unset else values.get(name)

    result = expanded(text, value)
    return None if "$" in result or _UNSUPPORTED.search(text) else result


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
