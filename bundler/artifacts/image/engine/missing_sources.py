"""Finds files that a Dockerfile copies but the context lacks, before the refresh.

Docker would notice in the middle of the build. Only certain cases are reported: a path whose
variables are all known, in a stage that the build needs. Of a pattern, it is the folder before its
first wildcard, if the instruction has no other source: BuildKit copies nothing for a pattern
without a match, and the classic builder needs a match of any source.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import msgspec

from bundler.artifacts.image.engine.dockerfile import (
    Instruction,
    copied_sources,
    environment_of,
    instructions,
    is_set_by_builder,
    mounts,
    substituted,
    syntax_of,
    words_of,
)
from bundler.artifacts.image.engine.ignore import (
    IGNORE_FILE,
    DockerIgnoreRule,
    excluded,
    may_hold,
)

# From the first part of a path with a wildcard on.
_PATTERN = re.compile(r"[^/]*[*?\[\]\\].*", re.DOTALL)
# What ADD downloads, and a heredoc.
_ELSEWHERE = re.compile(r"<<|[\w.-]+@[\w.-]+:|.*://")
_OFFICIAL_SYNTAX = re.compile(r"(docker\.io/)?docker/dockerfile(-upstream)?([:@]|$)")


class MissingSource(msgspec.Struct, frozen=True):
    """line: of the instruction. path: in the context. is_excluded: whether it exists, but is
    ignored."""

    line: int
    path: str
    is_excluded: bool


class _Stage(msgspec.Struct):
    """A stage of a Dockerfile, which begins with a FROM.

    name, base: in lower case. base: what FROM names. all_known: whether its whole environment is
    in the Dockerfile; any other base may set variables, which may override an ARG.
    """

    name: str
    base: str
    instructions: list[Instruction]
    all_known: bool


def missing_sources(
    root: Path,
    text: str,
    build_args: Mapping[str, str],
    rules: Sequence[DockerIgnoreRule],
    *,
    target: str | None = None,
    contexts: Collection[str] = (),
) -> Iterator[MissingSource]:
    """The sources that a build of this context would not find.

    target: the stage that is built; None for the last one. contexts: named ones, which replace
    stages with their names. Returns nothing for a Dockerfile in another language (``# syntax=``).
    """
    syntax = syntax_of(text)
    if syntax is not None and _OFFICIAL_SYNTAX.match(syntax) is None:
        return
    top = root.resolve()
    replaced = {name.lower().removesuffix(":latest") for name in contexts}
    shared, stages = _stages(text, build_args, replaced)
    environments: dict[str, dict[str, str | None]] = {}
    needed = _needed(stages, target, replaced)
    for index, stage in enumerate(stages):
        variables = {} if stage.base in replaced else dict(environments.get(stage.base, {}))
        for line, source in _sources(stage, variables, shared, build_args):
            path = posixpath.normpath(f"/{source}").lstrip("/")
            if index in needed and path:
                found = _missing(top, line, path, rules)
                if found is not None:
                    yield found
        environments[stage.name] = variables


def _stages(
    text: str, build_args: Mapping[str, str], replaced: Collection[str]
) -> tuple[dict[str, str | None], list[_Stage]]:
    """The variables before the first FROM, and the stages."""
    shared: dict[str, str | None] = {}
    stages: list[_Stage] = []
    for found in instructions(text):
        if found.name == "FROM":
            words = [word for word in words_of(found.text) if not word.startswith("--")]
            base = (substituted(words[0], shared) or "").lower() if words else ""
            named = words[2:] if [word.lower() for word in words[1:2]] == ["as"] else []
            name = "".join(named).lower() or str(len(stages))
            known = {"scratch", *(each.name for each in stages if each.all_known)} - {*replaced}
            stages.append(_Stage(name, base, [], base in known))
        elif stages:
            stages[-1].instructions.append(found)
        elif found.name == "ARG":
            _declare(found.text, shared, shared, build_args)
    return shared, stages


def _declare(
    text: str,
    variables: dict[str, str | None],
    shared: Mapping[str, str | None],
    build_args: Mapping[str, str],
    environment: Sequence[str] = (),
    *,
    all_known: bool = True,
) -> None:
    """Declares an ARG: its value is the caller's, its own, or that of one before the first FROM.

    It is unknown if an ENV before it sets that name: BuildKit uses the ARG's value, the classic
    builder and podman the ENV's.
    all_known: of the stage.
    """
    for word in words_of(text):
        name, equals, default = word.partition("=")
        is_open = name not in build_args and is_set_by_builder(name)
        if name in environment and not (equals or is_open or name in {**shared, **build_args}):
            continue  # it has no value
        value = substituted(default, variables) if equals else shared.get(name)
        is_certain = all_known and not is_open and name not in environment
        variables[name] = build_args.get(name, value) if is_certain else None


def _needed(stages: Sequence[_Stage], target: str | None, replaced: Collection[str]) -> set[int]:
    """The stages that the build of a target runs; all others may be broken."""
    places = {stage.name: index for index, stage in enumerate(stages)}
    places |= {str(index): index for index in range(len(stages))}
    wanted = len(stages) - 1 if target is None else places.get(target.lower(), -1)
    pending, needed = [wanted], set[int]()
    while pending:
        index = pending.pop()
        if index < 0 or index in needed or stages[index].name in replaced:
            continue
        needed.add(index)
        stage = stages[index]
        names = [stage.base]
        for found in stage.instructions:
            if found.name in ("COPY", "ADD"):
                options = takewhile(lambda word: word.startswith("--"), found.text.split())
                names += [word[7:] for word in options if word.startswith("--from=")]
            elif found.name == "RUN":
                names += [fields["from"] for fields in mounts(found.text) if "from" in fields]
        earlier = (places.get(name.lower(), index) for name in names)
        pending += [place for place in earlier if place < index]
    return needed


def _sources(
    stage: _Stage,
    variables: dict[str, str | None],
    shared: Mapping[str, str | None],
    build_args: Mapping[str, str],
) -> Iterator[tuple[int, str]]:
    """The sources in the context of a stage's instructions, with their lines.

    variables: those of its base; afterwards, those of the stage.
    """
    environment = list(variables)
    all_known = stage.all_known
    for found in stage.instructions:
        if found.name == "ARG":
            _declare(found.text, variables, shared, build_args, environment, all_known=all_known)
        elif found.name == "ENV":
            before = dict(variables)
            for name, value in environment_of(found.text):
                environment.append(name)
                variables[name] = substituted(value, before, all_known=all_known)
        elif found.name in ("COPY", "ADD", "RUN"):
            for path in _taken(found, variables, all_known=all_known):
                yield found.line, path
    for name in set(variables) - set(environment):
        del variables[name]  # an ARG ends with its stage


def _taken(
    found: Instruction, variables: Mapping[str, str | None], *, all_known: bool
) -> Iterator[str]:
    """What an instruction certainly takes from the context."""
    named = [*_bound(found.text)] if found.name == "RUN" else copied_sources(found.text)
    for source in named:
        path = substituted(source, variables, all_known=all_known)
        if path is None or _ELSEWHERE.match(path):
            continue
        if not _PATTERN.search(path):
            yield path
        elif len(named) == 1 and "--parents" not in found.text:
            yield _PATTERN.sub("", path)


def _bound(text: str) -> Iterator[str]:
    for fields in mounts(text):
        if fields.get("type", "bind") == "bind" and "from" not in fields:
            yield fields.get("source", fields.get("src", ""))


def _missing(
    top: Path, line: int, path: str, rules: Sequence[DockerIgnoreRule]
) -> MissingSource | None:
    """None if it exists, or if that is uncertain because of a link or an including rule."""
    parts = path.split("/")
    above = [top.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
    if any(each.is_symlink() for each in above):
        return None
    if not os.path.lexists(above[-1]):
        return MissingSource(line, path, is_excluded=False)
    if path.endswith(IGNORE_FILE) or "dockerfile" in parts[-1].lower():
        return None  # the client may send it anyway
    takes_in = [rule for rule in rules if not rule.exclude]
    if not excluded(path, rules) or (above[-1].is_dir() and may_hold(path, takes_in)):
        return None
    return MissingSource(line, path, is_excluded=True)
