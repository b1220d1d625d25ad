"""Builds whose result bypasses the engine's image store: in a registry, or for several platforms.

buildx delivers the code's image without a name: it pushes it by digest alone, or writes an OCI
layout. The state is added there for every platform and read back, and only then a tag names the
image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import oci, registry
from bundler.artifacts.image.blobs import descriptor
from bundler.artifacts.image.engine import outputs
from bundler.artifacts.image.engine.arguments import Arguments, output_of, pushes
from bundler.artifacts.image.engine.connection import Docker, Engine
from bundler.artifacts.image.engine.dockerbuild import Builder
from bundler.artifacts.image.engine.embedding import has_containerd_store, tag
from bundler.artifacts.image.engine.full_image_transfer import load_layout, publish_only
from bundler.artifacts.image.engine.outputs import ReadyImage
from bundler.artifacts.image.layout import LayoutFolder
from bundler.errors import ToolFailed, UsageError
from bundler.state.artifact import Artifact

_TAG = "made"


class BuildRequest(Protocol):
    """What to build, and with whose arguments: docker build's, or those of a target of bake.

    run: builds. folder: a temporary one for the build. result: the options that say where the image
    goes, without a name.
    """

    @property
    def builder(self) -> Builder: ...
    @property
    def arguments(self) -> Arguments: ...
    def run(self, folder: Path, result: Sequence[str]) -> None: ...


def applies_to(build: BuildRequest, engine: Engine) -> bool:
    """Whether this build bypasses the engine's store.

    Raises `ToolFailed` for several platforms without buildx, `UsageError` if they should go into a
    store that does not support that.
    """
    arguments = build.arguments
    is_buildx = build.builder.kind == "buildx"
    if len(arguments.platforms) > 1:
        if not is_buildx:
            raise ToolFailed(
                f"Building for several platforms requires buildx, but this is {build.builder}.",
                hint="Install the docker-buildx plugin, or build each platform separately.",
            )
        _refuse_what_no_store_holds(arguments, engine)
        return True
    is_elsewhere = all(it["type"] == "oci" or pushes(it) for it in arguments.results)
    only_pushes = bool(arguments.pushed) and not arguments.stays
    if not is_buildx or not (only_pushes or (arguments.shape and is_elsewhere)):
        return False  # the engine would not keep its compression
    return has_containerd_store(engine) or _pushes_by_digest(arguments, engine.docker)


def _refuse_what_no_store_holds(arguments: Arguments, engine: Engine) -> None:
    for fields in arguments.results:
        if fields["type"] in ("tar", "local", "docker") and "dest" in fields:
            raise UsageError(
                f"--output type={fields['type']} supports only one platform.",
                hint="For several, use type=oci,dest=PATH or push to a registry: --push.",
            )
    if _is_loaded(arguments) and not has_containerd_store(engine):
        raise UsageError(
            "The engine's image store does not support several platforms.",
            hint="Add --push or -o type=oci,dest=PATH, or enable the containerd image store.",
        )


def _is_loaded(arguments: Arguments) -> bool:
    return any("dest" not in it and not pushes(it) for it in arguments.results)


def _pushes_by_digest(arguments: Arguments, docker: Docker) -> bool:
    """Whether the builder supports it; the one inside docker's engine does not."""
    named = list(arguments.given("--builder"))[-1:]
    said = docker.ask("buildx", "inspect", *named)
    driver = next((line for line in said.splitlines() if line.startswith("Driver:")), "")
    return driver.split()[-1:] != ["docker"]


@contextmanager
def building(build: BuildRequest, engine: Engine, request: EmbedRequest) -> Iterator[ReadyImage]:
    """Builds and embeds without a name; writes files, pushes and tags when the block succeeds."""
    arguments = build.arguments
    only_pushes = arguments.pushed and not arguments.stays
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        folder = Path(name)
        if only_pushes and _pushes_by_digest(arguments, engine.docker):
            way = _in_registry(build, request, folder)
        else:
            way = _in_layout(build, engine, request, folder)
        with way as made:
            image = ReadyImage(made, arguments)
            yield image
    outputs.write_files(arguments, image.image_id, {"containerimage.digest": image.image_id})


@contextmanager
def _in_registry(build: BuildRequest, request: EmbedRequest, folder: Path) -> Iterator[Artifact]:
    """Only the state passes through this machine."""
    tags = tuple(map(registry.parse, build.arguments.names_of(build.arguments.pushed)))
    with registry.opened(tags[0], request.listener) as (target, _):
        digest = _pushed_code(build, target.name, folder)
        request.listener.phase("Embedding the state in the image")
        found = registry.source(tags[0].at(digest), target.connection, request.listener)
        with registry.RegistryDestination(target, tags, (found,)).embed(request) as made:
            yield made


def _pushed_code(build: BuildRequest, repository: str, folder: Path) -> str:
    """Builds the code's image into a repository; returns its digest. It gets no tag."""
    metadata = folder / "metadata.json"
    to = {"type": "image", "name": repository, "push": "true"}
    to |= {"push-by-digest": "true", "name-canonical": "true", **build.arguments.shape}
    build.run(folder, ["--output", output_of(to), "--metadata-file", str(metadata)])
    try:
        return str(msgspec.json.decode(metadata.read_bytes())["containerimage.digest"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise ToolFailed("docker build succeeded but did not report what it pushed.") from error


@contextmanager
def _in_layout(
    build: BuildRequest, engine: Engine, request: EmbedRequest, folder: Path
) -> Iterator[Artifact]:
    arguments = build.arguments
    code, path = folder / "code.tar", folder / "with-state"
    to = {"type": "oci", "dest": str(code), **arguments.shape}
    build.run(folder, ["--output", output_of(to)])
    request.listener.phase("Embedding the state in the image")
    with (
        oci.source(code) as found,
        oci.LayoutDestination(path, _TAG, (found,)).embed(request) as made,
    ):
        code.unlink()
        yield made
    layout = LayoutFolder(path)
    (entry,) = layout.index()["manifests"]
    for fields in arguments.results:
        if fields["type"] == "oci":
            publish_only(layout, entry, *arguments.names_of([fields]))
            outputs.write_layout(layout.path, fields)
    if _is_loaded(arguments):
        names = arguments.names
        publish_only(layout, entry, *names[:1])
        load_layout(engine, layout)
        for other in names[1:]:
            tag(engine, names[0], other)
    if arguments.pushed:
        tags = tuple(map(registry.parse, arguments.names_of(arguments.pushed)))
        registry.publish(layout, descriptor(entry, layout.name), tags, request.listener)
