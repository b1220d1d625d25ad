"""Determines before the refresh and the build where the state would go, as far as possible.

It is known if the Dockerfile adds no files to a base that the engine has, or none at the configured
path. Otherwise the image that has the name now is the best guess: it was built from an earlier
Dockerfile, or without state.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bundler.artifacts.image import image
from bundler.artifacts.image.engine.config import settings_of
from bundler.artifacts.image.engine.connection import Engine
from bundler.artifacts.image.engine.dockerfile import (
    Instruction,
    additions,
    final_stage,
    image_settings,
    is_open,
)
from bundler.artifacts.image.engine.embedding import PlaceFinder
from bundler.artifacts.image.engine.files import ContainerFiles, reading
from bundler.artifacts.image.image_program import runs_as
from bundler.errors import BundlerError, ConfigurationError
from bundler.listener import Listener

_ADDS_FILES = ("RUN", "COPY", "ADD", "ONBUILD")


@dataclass(frozen=True)
class WantedPlaces:
    """places: of the state directories, relative to their import roots. override: the path that
    the user gave. certain: whether there will be a state at each of the places."""

    places: Sequence[str]
    override: str | None = None
    hints: Sequence[str] = ()
    certain: bool = True


@dataclass(frozen=True)
class Foreseer:
    """dockerfile: its text. target: the stage that is built, None for the last one. tag: the
    name that the image gets, if any. same_bases: whether the build certainly uses the engine's
    own copy of a base."""

    engine: Engine
    dockerfile: str
    target: str | None = None
    tag: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    same_bases: bool = True

    def check(self, wanted: WantedPlaces, listener: Listener) -> None:
        """Raises `ConfigurationError` if the build would certainly end without a place for the
        state; warns if that is likely."""
        stage = final_stage(self.dockerfile, self.target, self.build_args)
        if stage is None:
            return
        if self.same_bases:
            _refuse_hidden(stage, wanted.override)
        problems: list[ConfigurationError] = []
        is_certain = wanted.certain and self.same_bases
        # The build reports an engine that does not answer. And the contents of an image that the
        # build replaces are no reason to refuse.
        with suppress(BundlerError):
            is_base = not self._may_add(stage, wanted.override)
            is_certain = is_certain and is_base
            name = stage[0].text if is_base else self.tag
            if name is None:
                return
            inspected = self.engine.image(name)
            if image.claims_of(image.labels(settings_of(inspected))) is not None:
                return  # its place was determined before
            config = inspected.get("Config") or {}
            settings = image_settings(config, stage) if is_base else config
            is_certain = is_certain and not (config.get("OnBuild") or is_open(settings))
            problems += self._problems(str(inspected["Id"]), settings, wanted)
        for problem in problems:
            if is_certain:
                raise problem
            listener.warning(
                f"In the current {name}: {problem.what} Unless the new image differs, the build "
                f"will fail. {problem.hint}"
            )

    def _may_add(self, stage: Sequence[Instruction], override: str | None) -> bool:
        """Whether the instructions may add files that decide where the state goes."""
        if not any(it.name in _ADDS_FILES for it in stage):
            return False
        base = stage[0].text
        if override is None or not self.engine.has_image(base):
            return True
        inspected = self.engine.image(base)
        if (places := additions(inspected.get("Config") or {}, stage)) is None:
            return True
        with reading(self.engine, str(inspected["Id"])) as container:
            wanted = _real(container, override)
            return wanted is None or any(
                place is None or _is_within(wanted, place) or _is_within(place, wanted)
                for place in (_real(container, place) for place in places)
            )

    def _problems(
        self, identity: str, config: Mapping[str, Any], wanted: WantedPlaces
    ) -> Iterator[ConfigurationError]:
        with reading(self.engine, identity) as container:
            finder = PlaceFinder(container, identity)
            for place in wanted.places:
                try:
                    finder.find(runs_as(config), place, wanted.override, wanted.hints)
                except ConfigurationError as error:
                    yield error


def _is_within(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _real(files: ContainerFiles, path: str) -> str | None:
    """A path without the symbolic links on its way, of which the end may be missing; None for one
    that leads nowhere, so that what is written there appears elsewhere.
    """
    head, rest = posixpath.normpath(path), ""
    while (found := files.resolve(head)) is None:
        if files.has(head):
            return None
        head, name = posixpath.split(head)
        rest = posixpath.join(name, rest)
    return posixpath.normpath(posixpath.join(found, rest))


def _refuse_hidden(stage: Sequence[Instruction], override: str | None) -> None:
    """Refuses a volume over the path that the user gave."""
    if override is None:
        return
    for volume in image_settings({}, stage).get("Volumes") or ():
        if _is_within(posixpath.normpath(override), posixpath.normpath(volume)):
            raise ConfigurationError(
                f"The Dockerfile declares VOLUME {volume}, which hides the state at {override}.",
                hint="Remove that line, or name a narrower directory in it.",
            )
