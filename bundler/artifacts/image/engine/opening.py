"""Opens an image in an engine for reading. Nothing in it is run."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Any

from bundler.artifacts.image import image
from bundler.artifacts.image.engine.config import settings_of
from bundler.artifacts.image.engine.connection import Docker, Engine, NotInEngine
from bundler.artifacts.image.engine.files import ANSWER, ContainerFiles, reading
from bundler.artifacts.image.engine.remade import Remade
from bundler.artifacts.image.examining import (
    ImageArtifact,
    ImageStateDirectory,
    examined,
    unreachable,
)
from bundler.artifacts.image.image_import_path import as_started
from bundler.artifacts.image.image_program import RunsAs, runs_as
from bundler.artifacts.image.members import members_below, state_directories_in
from bundler.artifacts.image.tarstream import read_tar
from bundler.errors import UsageError, VerificationFailed
from bundler.state.artifact import Member, StateDirectory
from bundler.state.bundle import MANIFEST_NAME
from bundler.state.manifest import MAX_MANIFEST_BYTES, Manifest


class EngineImage(ImageArtifact):
    """An image in an engine.

    What its label names is read. An image without our label, one that was changed since, and one
    whose topmost layer is not made from these states, is searched completely. inspected: the
    engine's description of it. is_sealed: whether the engine has computed the digest of its topmost
    layer, and it is that of the layer made from the states.
    """

    kind = "docker"

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        inspected: Mapping[str, Any] | None = None,
        is_sealed: bool = False,
    ) -> None:
        self.name = name
        self._is_sealed = is_sealed
        inspected = inspected or engine.image(name)
        self.digest = str(inspected["Id"])
        self.engine = engine
        self.config = settings_of(inspected)
        if is_sealed:
            self.proof = f"layer {image.diff_ids(self.config)[-1]} confirmed by the engine"
        self._remade: Remade | None = None
        self._manifests: dict[str, bytes | None] = {}
        self._stack = ExitStack()

    def runs_as(self) -> RunsAs:
        return as_started(self.container, runs_as(self.config.get("config") or {}))

    def state_directories(self) -> Sequence[StateDirectory]:
        claims = self.claims()
        if claims is None:
            paths = state_directories_in(self.container.tree())
        else:
            paths = [claim.path for claim in claims if self.container.has(claim.path)]
        return [
            ImageStateDirectory(
                path,
                partial(self._read_manifest, path),
                partial(self._members, path),
                sealed=self._is_sealed,
            )
            for path in paths
        ]

    def problems(self, found: Mapping[str, Manifest]) -> Iterator[str]:
        """What is wrong with the image itself, as messages. found: its manifests, by path."""
        if image.volumes_of(self.config):
            yield from image.hidden_states(self.config, found, self.container.resolve)
        yield from unreachable(self.config, found, lambda: self.container)
        if self.claims() is None:  # it was searched for states
            return
        made = self._made_diff_id() if image.is_untouched(self.config) else None
        if made is None:
            yield from examined(self.container.tree(), self.config, found)
        elif made != image.diff_ids(self.config)[-1]:
            yield (
                "The topmost layer does not match these states: something was added to "
                "it or altered."
            )

    def _made_diff_id(self) -> str | None:
        """The digest of the layer that these states make; None if it is unknown."""
        if self._is_sealed:  # it was compared when the engine received it
            return image.diff_ids(self.config)[-1]
        # Podman does not check a layer's digest.
        if self._remade is None or self.engine.is_podman:
            return None
        return self._remade.diff_id()

    def _read_manifest(self, directory: str) -> bytes | None:
        if directory not in self._manifests:
            path = f"{directory}/{MANIFEST_NAME}"
            there = self.container.is_directory(directory) and self.container.has(path)
            self._manifests[directory] = self._read_small(path) if there else None
        return self._manifests[directory]

    def _read_small(self, path: str) -> bytes | None:
        with self.container.archive(path) as stream:
            for member in read_tar(stream, ANSWER):
                if member.kind != "file":
                    return None
                if member.size > MAX_MANIFEST_BYTES:
                    raise VerificationFailed(f"{path} is too large.")
                return member.open().read()
        return None

    def _members(self, path: str) -> Iterator[Member]:
        remade = self._remade_for(path)
        with self.container.archive(path) as stream:
            for member in members_below(stream, posixpath.basename(path)):
                yield remade.taking(member, path) if remade else member

    def _remade_for(self, path: str) -> Remade | None:
        """The layer that these states make, from the bytes that are read; None if it has other
        states.

        path: of the state directory that is being read. The first one starts again.
        """
        if path == min(image.import_paths(self.config), default=None):
            layer = image.recreated(self.config, self._read_manifest)
            self._remade = None if layer is None else Remade(layer, self._stack)
        return self._remade

    @cached_property
    def container(self) -> ContainerFiles:
        return self._stack.enter_context(reading(self.engine, str(self.digest)))

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def open_image(name: str, docker: Docker | None = None) -> EngineImage:
    """Opens an image by name or ID.

    Raises `UsageError` if the engine does not have it, `ToolFailed` if it cannot be asked.
    """
    engine = (docker or Docker.from_environment()).connect()
    try:
        return EngineImage(engine, name)
    except NotInEngine as error:
        raise UsageError(
            f"The Docker engine has no image {name}.", hint=f"docker pull {shlex.quote(name)}"
        ) from error
