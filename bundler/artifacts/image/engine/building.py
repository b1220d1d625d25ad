"""Builds an image with the person's own docker, then puts the state on top.

Names, files and pushes come last, of the image that was read back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bundler.artifacts.image.engine import bypasses_image_store, dockerbuild, outputs
from bundler.artifacts.image.engine.arguments import Arguments
from bundler.artifacts.image.engine.bypasses_image_store import Put
from bundler.artifacts.image.engine.connection import Docker, Engine
from bundler.artifacts.image.engine.context import shown
from bundler.artifacts.image.engine.dockerbuild import DockerBuild, Program, detect, dockerfile_of
from bundler.artifacts.image.engine.dockerfile import refreshing, refuse_copied_state
from bundler.artifacts.image.engine.embedding import Embedded, discard, embed, remove_unnamed, tag
from bundler.artifacts.image.engine.outputs import Built
from bundler.artifacts.image.engine.stdin_context import Piped
from bundler.artifacts.image.engine.transport import preload
from bundler.errors import BundlerError, ToolFailed, UsageError
from bundler.listener import SILENT, Listener
from bundler.state.artifact import Artifact
from bundler.state.bundle import Bundle
from bundler.state.manifest import RunRecord


def preflight(
    arguments: Arguments, listener: Listener = SILENT, piped: Piped | None = None
) -> None:
    """Finds, before anything is refreshed, what cannot end well.

    piped: what came by stdin.
    Raises `ConfigurationError` for a Dockerfile that copies state, `UsageError` for what cannot
    be carried out with the finished image.
    """
    outputs.check(arguments)
    if (found := _dockerfile(arguments, piped)) is None:
        return
    name, text = found[0], found[1].decode(errors="replace")
    refuse_copied_state(text, name)
    for sentence in refreshing(text, name):
        listener.warning(sentence)


def _dockerfile(arguments: Arguments, piped: Piped | None) -> tuple[str, bytes] | None:
    """Its name for messages, and its text; None where only docker knows it."""
    path = dockerfile_of(arguments)
    if path is not None:
        if "://" in str(arguments.file):
            raise UsageError(
                f"The Dockerfile {arguments.file} is not here.",
                hint="Fetch it first, and name the file with -f.",
            )
        if not path.is_file():
            raise UsageError(
                f"There is no {path.name} in {path.resolve().parent}.",
                hint="Name it with -f, or give another context; ours is Dockerfile.example.",
            )
        return path.name, dockerbuild.read(path)
    if piped is None:
        return None
    name = arguments.file if piped.is_archive and arguments.file else "Dockerfile"
    text = piped.dockerfile(name)
    if text is None:
        raise UsageError(f"The archive on stdin has no {name}.", hint="Name it with -f.")
    return name, text


def build(
    arguments: Arguments,
    bundles: Sequence[Bundle],
    record: RunRecord,
    *,
    docker: Docker | None = None,
    program: Callable[[], Program] | None = None,
    command: Sequence[str] = ("build",),
    places: Mapping[str, str] | None = None,
    hints: Sequence[str] = (),
    check: Callable[[Artifact], object] = lambda _: None,
    every_byte: bool = False,
    piped: Piped | None = None,
    listener: Listener = SILENT,
) -> Built:
    """Builds, embeds, reads back, and only then names the image.

    program: what was asked ahead of the docker program. command: ``build`` or ``buildx build``.
    check: is given the image before it has a name.
    places, hints, every_byte: as for `embed`. piped: what came by stdin.
    Raises `ChildFailed` with docker's own exit code where the build fails, and as `embed` does.
    """
    docker = docker or Docker.from_environment()
    engine = docker.connect_late()
    builder = detect(docker, engine, program() if program else None)
    listener.note(f"Building with {builder}.")
    for sentence in shown(arguments, bundles):
        listener.warning(sentence)
    asked = DockerBuild(docker, builder, arguments, tuple(bundles), tuple(command), piped)
    if bypasses_image_store.is_meant(asked, engine):
        put = Put(record, places or {}, check, listener, every_byte)
        return bypasses_image_store.build(asked, engine, put)
    base = _loaded(asked)
    listener.phase("Putting the state into the image")
    try:
        embedded = embed(
            engine,
            base,
            bundles,
            record,
            places=places,
            hints=hints,
            check=check,
            before=next(iter(arguments.tags), None),
            every_byte=every_byte,
            listener=listener,
        )
    finally:
        # The classic builder's images are its cache; BuildKit keeps one of its own.
        if builder.is_buildkit:
            with suppress(BundlerError):
                remove_unnamed(engine, base)
    return finish(docker, engine, arguments, embedded, listener)


def finish(
    docker: Docker,
    engine: Engine,
    arguments: Arguments,
    embedded: Embedded,
    listener: Listener = SILENT,
) -> Built:
    """Names an image that was read back; then files and pushes."""
    for name in arguments.tags:
        tag(engine, embedded.image_id, name)
    outputs.carry_out(docker, engine, arguments, embedded.image_id, listener)
    if outputs.only_files(arguments):
        with suppress(BundlerError):
            discard(engine, embedded.image_id)
    return Built(embedded.image_id, arguments, embedded.paths)


def _loaded(asked: DockerBuild) -> str:
    """Builds into the engine and returns the ID of the image, which has no name."""
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        folder = Path(name)
        iidfile = folder / "iid"
        is_buildx = asked.builder.kind == "buildx"
        preload()
        asked.run(folder, ["--iidfile", str(iidfile), *(["--load"] if is_buildx else [])])
        if not iidfile.exists():
            raise ToolFailed("docker build ended well, but did not say which image it made.")
        return iidfile.read_text().strip()
