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
from pathlib import Path

import msgspec

from bundler.artifacts.image.engine.dockerfile import (
    Instruction,
    Stage,
    context_sources,
    mounts,
    options_of,
    stages,
    substituted,
    syntax_of,
    variables_after,
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
    found = stages(text, build_args)
    needed = _needed(found, target, replaced)
    environments: dict[str, Mapping[str, str | None]] = {name: {} for name in replaced}
    for index, stage in enumerate(found):
        values = environments.get(stage.base.lower(), {})
        for instruction in stage.instructions:
            for source in _taken(instruction, values) if index in needed else ():
                path = posixpath.normpath(f"/{source}").lstrip("/")
                missing = _missing(top, instruction.line, path, rules) if path else None
                if missing is not None:
                    yield missing
            values = variables_after(instruction, values)
        environments.setdefault(stage.name, values)


def _needed(stages: Sequence[Stage], target: str | None, replaced: Collection[str]) -> set[int]:
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
                names += [word[7:] for word in options_of(found) if word.startswith("--from=")]
            names += [fields["from"] for fields in mounts(found) if "from" in fields]
        earlier = (places.get(name.lower(), index) for name in names)
        pending += [place for place in earlier if place < index]
    return needed


def _taken(found: Instruction, values: Mapping[str, str | None]) -> Iterator[str]:
    """What an instruction certainly takes from the context."""
    named = context_sources(found)
    for source in named:
        path = substituted(source, values)
        if path is None or _ELSEWHERE.match(path):
            continue
        if not _PATTERN.search(path):
            yield path
        elif len(named) == 1 and "--parents" not in found.text:
            yield _PATTERN.sub("", path)


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
