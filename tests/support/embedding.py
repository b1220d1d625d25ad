"""State put into an artifact in one call: the block of a destination, with a check in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image.engine import building
from bundler.artifacts.image.engine.arguments import Arguments
from bundler.artifacts.image.engine.connection import Docker, Engine
from bundler.artifacts.image.engine.dockerbuild import BuildInput, detect
from bundler.artifacts.image.engine.embedding import EngineDestination
from bundler.artifacts.image.engine.stdin_context import Piped
from bundler.artifacts.image.oci import LayoutDestination, source
from bundler.artifacts.python.pex import PexDestination
from bundler.artifacts.python.pex.file import PexArtifact
from bundler.artifacts.python.wheel import WheelDestination
from bundler.state.artifact import Artifact
from bundler.state.bundle import Bundle
from bundler.state.manifest import RunRecord

Check = Callable[[Artifact], object]


@dataclass(frozen=True)
class Made:
    """An image with its state. image_id: its digest; paths: of its state directories.

    config_digest, layer: of this machine's platform, of an image in a layout. changed: whether its
    tag named another image before.
    """

    image_id: str
    paths: tuple[str, ...]
    config_digest: str = ""
    layer: str = ""
    changed: bool = True

    @property
    def digest(self) -> str:
        return self.image_id


def unchecked(_: Artifact) -> None:
    """Takes what was made as it is."""


def paths_of(artifact: Artifact) -> tuple[str, ...]:
    return tuple(sorted(claim.path for claim in artifact.claims() or ()))


def embed_pex(base: Path, bundles: Sequence[Bundle], record: RunRecord, destination: Path) -> None:
    with (
        PexArtifact(base) as pex,
        PexDestination(pex, destination).embed(EmbedRequest(tuple(bundles), record)),
    ):
        pass


def embed_wheel(
    base: Path, bundles: Sequence[Bundle], record: RunRecord, destination: Path
) -> None:
    with WheelDestination(base, destination).embed(EmbedRequest(tuple(bundles), record)):
        pass


def embed_layout(
    base: Path | None,
    bundles: Sequence[Bundle],
    record: RunRecord,
    destination: Path,
    *,
    tag: str = "latest",
    base_tag: str | None = None,
    check: Check = unchecked,
    **options: object,
) -> Made:
    request = EmbedRequest(tuple(bundles), record, **options)  # type: ignore[arg-type]
    with ExitStack() as stack:
        sources = () if base is None else (stack.enter_context(source(base, base_tag)),)
        to = LayoutDestination(destination, tag, sources)
        before = to.digest()
        with to.embed(request) as made:
            check(made)
            layer = made.image.layers[-1].digest
            config, digest = str(made.image.manifest["config"]["digest"]), str(made.digest)
            return Made(digest, paths_of(made), config, layer, changed=digest != before)


def embed_image(
    engine: Engine,
    base: str,
    bundles: Sequence[Bundle],
    record: RunRecord,
    *names: str,
    check: Check = unchecked,
) -> Made:
    request = EmbedRequest(tuple(bundles), record)
    with EngineDestination(engine, base, names).embed(request) as made:
        check(made)
        return Made(str(made.digest), paths_of(made))


def build_image(
    arguments: Arguments,
    request: EmbedRequest,
    docker: Docker,
    *,
    check: Check,
    piped: Piped | None = None,
) -> Made:
    builder = detect(docker)
    given = BuildInput(arguments, piped, lambda: builder)
    with building.building(given, request, docker, builder) as image:
        check(image.artifact)
        return Made(image.image_id, paths_of(image.artifact))
