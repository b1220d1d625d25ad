"""Where a Dockerfile puts the code, and with it the state, according to its instructions.

An installed package is in another place as well: this is for warnings, not for builds.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from bundler.artifacts.image.engine.dockerfile import Instruction

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))")


def state_in_image(
    found: Sequence[Instruction],
    state_directories: Sequence[PurePosixPath],
    arguments: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The paths at which the last stage has, or would have, the state directories.

    state_directories: relative to the context. arguments: the build's.
    """
    places: dict[str, None] = {}
    for names, target in _copies(found, {**_variables(found), **(arguments or {})}):
        for name in names:
            for directory in state_directories:
                if directory.is_relative_to(name):
                    relative = directory.relative_to(name).as_posix()
                    places[posixpath.normpath(posixpath.join(target, relative))] = None
    return tuple(places)


def working_directories(found: Sequence[Instruction]) -> tuple[str, ...]:
    """Those that the last stage sets, each absolute."""
    return tuple(dict.fromkeys(directory for _, directory in _with_directory(found) if directory))


def hides(mount: str, place: str) -> bool:
    """Whether a mount there hides what the image has at a place."""
    mount = posixpath.normpath(mount)
    return mount != "/" and f"{posixpath.normpath(place)}/".startswith(f"{mount}/")


def volumes_of(instruction: Instruction, found: Sequence[Instruction]) -> Iterator[str]:
    """The paths that a VOLUME declares."""
    for path in _words(instruction.text):
        yield _resolved(path, _variables(found))


def _with_directory(found: Sequence[Instruction]) -> Iterator[tuple[Instruction, str]]:
    """The instructions of the last stage, each with its working directory."""
    stages = [n for n, one in enumerate(found) if one.name == "FROM"]
    variables = _variables(found)
    directory = ""
    for instruction in found[stages[-1] if stages else 0 :]:
        if instruction.name == "WORKDIR":
            path = _resolved(instruction.text.strip("\"'"), variables)
            directory = posixpath.normpath(posixpath.join(directory or "/", path))
        yield instruction, directory


def _copies(
    found: Sequence[Instruction], variables: Mapping[str, str]
) -> Iterator[tuple[list[str], str]]:
    """What the last stage copies from the context, and the destinations."""
    for instruction, directory in _with_directory(found):
        if instruction.name not in ("COPY", "ADD"):
            continue
        words = _words(instruction.text)
        options = [word for word in words if word.startswith("--")]
        *names, target = [word for word in words if word not in options] or [""]
        if names and not any(option.startswith("--from=") for option in options):
            target = posixpath.join(directory or "/", _resolved(target, variables))
            names = [_resolved(name, variables).lstrip("/") or "." for name in names]
            yield [posixpath.normpath(name) for name in names], target


def _variables(found: Sequence[Instruction]) -> dict[str, str]:
    known: dict[str, str] = {}
    for instruction in found:
        if instruction.name in ("ARG", "ENV"):
            words = _words(instruction.text)
            if instruction.name == "ENV" and words and "=" not in words[0]:
                known[words[0]] = " ".join(words[1:])
                continue
            pairs = (word.partition("=") for word in words if "=" in word)
            known.update({name: value.strip("\"'") for name, _, value in pairs})
    return known


def _resolved(text: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(
        lambda found: variables.get(found[1] or found[3], found[2] or found[0]), text
    )


def _words(text: str) -> list[str]:
    """The words of an instruction, in either form."""
    if text.startswith("["):
        try:
            return [str(word) for word in json.loads(text)]
        except ValueError:
            pass
    return [word.strip("\"'") for word in text.split()]
