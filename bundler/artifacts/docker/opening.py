"""An image in an engine, open for reading. Nothing in it is ever run."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from bundler.artifacts import Member, StateDirectory, image
from bundler.artifacts.docker.connection import Docker, Engine, NotFound
from bundler.artifacts.docker.files import Container, reading
from bundler.artifacts.members import members_below
from bundler.artifacts.rootfs import content_of, read_tar
from bundler.bundle import MANIFEST_NAME, Bundle
from bundler.errors import UsageError, VerificationFailed
from bundler.manifest import MAX_MANIFEST_BYTES, Claim, RunRecord

if TYPE_CHECKING:
    from typing_extensions import Self

# So much of a state directory is kept until its manifest comes by: hardly ever more than a line.
_MAX_KEPT_BYTES = 4 * 1024 * 1024
_HEADER_BYTES = 512


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
            from bundler.artifacts.members import state_directories_in

            paths = state_directories_in(self.container.tree())
        else:
            paths = [claim.path for claim in claims]
        found = [_EngineDirectory(self, path, self._sealed.get(path)) for path in paths]
        if claims is None:
            return found
        # Of one, whether it is there is told by what is read of it anyway.
        is_there = _EngineDirectory.begin if len(found) == 1 else _EngineDirectory.exists
        return list(filter(is_there, found))

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
    """A state directory in an image, read as one stream from its manifest on.

    sealed: its bytes are those of the bundle, by the digest of the layer that holds them.
    """

    def __init__(self, found: EngineImage, path: str, bundle: Bundle | None) -> None:
        self.path = path
        self.sealed = bundle is not None
        self._image = found
        self._bundle = bundle
        self._passing: _Passing | None = None

    def exists(self) -> bool:
        return self.sealed or self._image.container.has(self.path)

    def begin(self) -> bool:
        """Asks for all of it, of which as much is sent as is read. False: nothing is there."""
        if not self.sealed:
            try:
                stream = self._image.container.hold(self.path)
            except NotFound:
                return False
            self._passing = _Passing(stream, posixpath.basename(self.path))
        return True

    def read_manifest(self) -> bytes | None:
        if self._bundle is not None:
            return self._bundle.manifest.raw
        if not self._is_passing() and not self.begin():
            return None
        found = self._passing.manifest() if self._passing is not None else None
        if found is None:
            self._passing = None
            found = self._manifest_by_itself()
        return found

    def _is_passing(self) -> bool:
        """Whether its stream is open; whoever asks the engine something else ends it."""
        passing = self._passing
        return passing is not None and self._image.container.holds(passing.stream)

    def _manifest_by_itself(self) -> bytes | None:
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
        if not self._is_passing():
            self.begin()
        passing, self._passing = self._passing, None
        if passing is not None:
            yield from passing.members()
            self._image.container.release()


class _Passing:
    """A state directory's stream. What comes before its manifest is kept, so that it is read once.

    The engine sorts by name: of what we put there only a file of rules and keys that begin with
    a digit come before it.
    """

    def __init__(self, stream: BinaryIO, top: str) -> None:
        self.stream = stream
        self._coming = members_below(stream, top)
        self._kept: list[Member] = []
        self._manifest: bytes | None = None

    def manifest(self) -> bytes | None:
        """None where it does not come soon, or as a file: then it is to be asked for by itself."""
        kept = 0
        while self._manifest is None:
            member = next(self._coming, None)
            if member is None:
                return None
            is_manifest = member.path == MANIFEST_NAME
            if is_manifest and (member.kind != "file" or member.size > MAX_MANIFEST_BYTES):
                return None
            kept += 0 if is_manifest else member.size + _HEADER_BYTES
            if kept > _MAX_KEPT_BYTES:
                return None
            content = member.open().read() if member.kind == "file" else b""
            opener = partial(io.BytesIO, content)
            self._kept.append(Member(member.path, member.kind, member.size, opener))
            if is_manifest:
                self._manifest = content
        return self._manifest

    def members(self) -> Iterator[Member]:
        yield from self._kept
        yield from self._coming
