"""An image in an engine, open for reading. Nothing in it is ever run."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bundler.artifacts import Member, StateDirectory, image
from bundler.artifacts.docker.connection import Docker, Engine, NotFound
from bundler.artifacts.docker.files import Container, reading
from bundler.artifacts.members import members_below, state_directories_in
from bundler.artifacts.rootfs import content_of, read_tar
from bundler.bundle import MANIFEST_NAME
from bundler.errors import UsageError, VerificationFailed
from bundler.manifest import MAX_MANIFEST_BYTES, Claim, RunRecord

if TYPE_CHECKING:
    from typing_extensions import Self


class EngineImage:
    """An image in an engine.

    What its label names is read; only an image without our label is searched as a whole.
    """

    kind = "docker"

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        inspected = engine.get(f"/images/{name}/json")
        self.digest: str | None = str(inspected["Id"])
        self.engine = engine
        self._labels = image.labels({"config": inspected.get("Config")})
        self._stack = ExitStack()
        self._opened: Container | None = None

    def labels(self) -> Mapping[str, str]:
        return self._labels

    def claims(self) -> Sequence[Claim] | None:
        return image.claims_of(self._labels)

    def run_record(self) -> RunRecord | None:
        return image.run_record_of(self._labels)

    def state_directories(self) -> Sequence[StateDirectory]:
        claims = self.claims()
        if claims is None:
            paths = state_directories_in(self._container.tree())
        else:
            paths = [claim.path for claim in claims if self._container.has(claim.path)]
        return [_EngineDirectory(self._container, path) for path in paths]

    @property
    def _container(self) -> Container:
        if self._opened is None:
            context = reading(self.engine, str(self.digest))
            self._opened = self._stack.enter_context(context)
        return self._opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def open_image(name: str, docker: Docker | None = None) -> EngineImage:
    """Opens an image by name or ID.

    Raises `UsageError` where the engine does not have it, `ToolFailed` where it cannot be asked.
    """
    engine = (docker or Docker.from_environment()).connect()
    try:
        return EngineImage(engine, name)
    except NotFound as error:
        raise UsageError(
            f"The Docker engine has no image {name}.", hint=f"docker pull {name}"
        ) from error


class _EngineDirectory:
    """A state directory in an image."""

    def __init__(self, container: Container, path: str) -> None:
        self.path = path
        self._container = container

    def read_manifest(self) -> bytes | None:
        path = f"{self.path}/{MANIFEST_NAME}"
        if not self._container.has(path):
            return None
        with self._container.archive(path) as stream:
            for archive, info in read_tar(stream):
                if not info.isreg():
                    return None
                if info.size > MAX_MANIFEST_BYTES:
                    raise VerificationFailed(f"{path} is too large.")
                return content_of(archive, info).read()
        return None

    def members(self) -> Iterator[Member]:
        with self._container.archive(self.path) as stream:
            yield from members_below(stream, posixpath.basename(self.path))
