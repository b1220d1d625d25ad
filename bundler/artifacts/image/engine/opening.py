"""An image in an engine, open for reading. Nothing in it is ever run."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from bundler.artifacts.image import image
from bundler.artifacts.image.engine.config import settings_of
from bundler.artifacts.image.engine.connection import Docker, Engine, NotFound
from bundler.artifacts.image.engine.files import Container, reading
from bundler.artifacts.image.rootfs import content_of, read_tar
from bundler.errors import UsageError, VerificationFailed
from bundler.state.artifact import Member, StateDirectory
from bundler.state.bundle import MANIFEST_NAME, Bundle
from bundler.state.manifest import MAX_MANIFEST_BYTES, Claim, RunRecord

if TYPE_CHECKING:
    from typing_extensions import Self


class EngineImage:
    """An image in an engine.

    What its label names is read; only an image without our label is searched as a whole.
    inspected: what the engine has just said of it. sealed: the bundles in its topmost layer, by
    path, where the engine has computed the very digest of the layer that was made of them.
    """

    kind = "docker"

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        inspected: Mapping[str, Any] | None = None,
        sealed: Mapping[str, Bundle] | None = None,
    ) -> None:
        self.name = name
        self._sealed = sealed or {}
        inspected = inspected or engine.get(f"/images/{name}/json")
        self.digest: str | None = str(inspected["Id"])
        self.engine = engine
        self._settings = settings_of(inspected)
        self._labels = image.labels(self._settings)
        self._stack = ExitStack()
        self._opened: Container | None = None

    def labels(self) -> Mapping[str, str]:
        return self._labels

    def files_below(self) -> str:
        """A digest of its code: all but the state."""
        return image.files_below(self._settings)

    def claims(self) -> Sequence[Claim] | None:
        return image.claims_of(self._labels)

    def run_record(self) -> RunRecord | None:
        return image.run_record_of(self._labels)

    def state_directories(self) -> Sequence[StateDirectory]:
        claims = self.claims()
        if claims is None:
            from bundler.artifacts.image.members import state_directories_in

            paths = state_directories_in(self.container.tree())
        else:
            paths = [claim.path for claim in claims if self._has(claim.path)]
        return [_EngineDirectory(self, path, self._sealed.get(path)) for path in paths]

    def _has(self, path: str) -> bool:
        return path in self._sealed or self.container.has(path)

    @property
    def container(self) -> Container:
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
    """A state directory in an image.

    sealed: its bytes are those of the bundle, by the digest of the layer that holds them.
    """

    def __init__(self, found: EngineImage, path: str, bundle: Bundle | None) -> None:
        self.path = path
        self.sealed = bundle is not None
        self._image = found
        self._bundle = bundle

    def read_manifest(self) -> bytes | None:
        if self._bundle is not None:
            return self._bundle.manifest.raw
        container, path = self._image.container, f"{self.path}/{MANIFEST_NAME}"
        if not container.has(path):
            return None
        with container.archive(path) as stream:
            for archive, info in read_tar(stream):
                if not info.isreg():
                    return None
                if info.size > MAX_MANIFEST_BYTES:
                    raise VerificationFailed(f"{path} is too large.")
                return content_of(archive, info).read()
        return None

    def members(self) -> Iterator[Member]:
        from bundler.artifacts.image.members import members_below

        with self._image.container.archive(self.path) as stream:
            yield from members_below(stream, posixpath.basename(self.path))
