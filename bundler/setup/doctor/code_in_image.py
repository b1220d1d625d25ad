"""Where a Dockerfile puts the code, and with it the state, according to its instructions.

An installed package is in another place as well: this is for warnings, not for builds.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from bundler.artifacts.image.engine.dockerfile import (
    Instruction,
    context_sources,
    environment_of,
    words_of,
)
from bundler.artifacts.image.image_program import expanded


def state_in_image(
    found: Sequence[Instruction],
    state_directories: Sequence[PurePosixPath],
    arguments: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The paths at which the last stage has, or would have, the state directories.

    state_directories: relative to the context. arguments: the build's.
    """
    variables = {**_variables(found), **(arguments or {})}
    places: dict[str, None] = {}
    for instruction, folder in _with_directory(found):
        if instruction.name not in ("COPY", "ADD"):
            continue
        target = posixpath.join(
            folder or "/", expanded((_words(instruction.text) or [""])[-1], variables)
        )
        for source in context_sources(instruction):
            name = posixpath.normpath(expanded(source, variables).lstrip("/") or ".")
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
    for path in _words(instruction.text):
        yield expanded(path, _variables(found))


def _with_directory(found: Sequence[Instruction]) -> Iterator[tuple[Instruction, str]]:
    """The instructions of the last stage, each with its working directory."""
    stages = [n for n, one in enumerate(found) if one.name == "FROM"]
    variables = _variables(found)
    directory = ""
    for instruction in found[stages[-1] if stages else 0 :]:
        if instruction.name == "WORKDIR":
            path = expanded(instruction.text.strip("\"'"), variables)
            directory = posixpath.normpath(posixpath.join(directory or "/", path))
        yield instruction, directory


def _variables(found: Sequence[Instruction]) -> dict[str, str]:
    """The values that ARG and ENV set; an ARG without a default sets none."""
    pairs = (environment_of(each.text) for each in found if each.name in ("ARG", "ENV"))
    return {name: value for each in pairs for name, value in each if value}


def _words(text: str) -> list[str]:
    """The words of an instruction, in either form."""
    return [word.strip("[],") for word in words_of(text)]
