"""Builds an image with the user's own docker, then adds the state.

Names, files and pushes come last, with the image that was read back.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image.engine import bypasses_image_store, outputs
from bundler.artifacts.image.engine.arguments import Arguments, fields_of, output_of
from bundler.artifacts.image.engine.connection import Docker, Engine, InvalidRequest
from bundler.artifacts.image.engine.context import missing_configuration, shown
from bundler.artifacts.image.engine.dockerbuild import Builder, BuildInput, DockerBuild
from bundler.artifacts.image.engine.dockerfile import (
    needing_buildkit,
    refreshing,
    refuse_copied_state,
)
from bundler.artifacts.image.engine.embedding import EngineDestination, discard, remove_unnamed
from bundler.artifacts.image.engine.ignore import parse, rules_in
from bundler.artifacts.image.engine.outputs import ReadyImage
from bundler.artifacts.image.engine.stdin_context import STDIN
from bundler.errors import ConfigurationError, ToolFailed, UsageError
from bundler.listener import SILENT, Listener

# What docker downloads, and bake's own names of contexts.
_REMOTE = re.compile(r"[\w+.-]+://|github\.com/|[\w.-]+@[\w.-]+:|(target|service):")


def preflight(given: BuildInput, listener: Listener = SILENT) -> None:
    """Detects before the refresh what cannot succeed.

    Raises `ConfigurationError` for a Dockerfile that copies state, and `UsageError` for a missing
    folder or file, and for what cannot be done with the finished image.
    """
    outputs.check(given.arguments)
    _refuse_missing_folders(given.arguments)
    if (found := given.dockerfile) is None:
        return
    refuse_copied_state(found.text, found.name)
    for sentence in refreshing(found.text, found.name):
        listener.warning(sentence)


def require_buildkit(given: BuildInput, detected: Callable[[], Builder]) -> None:
    """Raises `ToolFailed` if the Dockerfile needs BuildKit and the builder does not have it."""
    found = given.dockerfile
    modern = needing_buildkit(found.text) if found else None
    if found and modern and not (builder := detected()).is_buildkit:
        raise ToolFailed(
            f"{found.name}:{modern.line} requires BuildKit, which {builder} does not have.",
            hint="Install the docker-buildx plugin; up to Docker 22, DOCKER_BUILDKIT=1 is enough.",
        )


def refuse_missing_configuration(given: BuildInput, project: Path) -> None:
    """Raises `ConfigurationError` if no image of this context could load the project."""
    found, root = given.dockerfile, given.root
    if found is None or root is None or (file := given.ignore_file) is None:
        return
    if missing := missing_configuration(root, project, found.text, parse(rules_in(file))):
        raise ConfigurationError(
            f"{file} excludes {' and '.join(missing)} from the image, but Dagster needs that file "
            "to find the project and its state.",
            hint=f"Remove the rule, or add this one at the end: !{missing[0]}",
        )


def _refuse_missing_folders(arguments: Arguments) -> None:
    """Raises `UsageError` for a context, or a file of a secret, that docker would not find here."""
    named = (text.partition("=") for text in arguments.given("--build-context"))
    contexts = {"The context": arguments.context}
    contexts |= {f"--build-context {name}": where for name, _, where in named}
    for what, where in contexts.items():
        if where != STDIN and not (_REMOTE.match(where) or Path(where).is_dir()):
            raise UsageError(
                f"{what} is {where}, which is neither a directory here nor a URL.",
                hint="Pass an existing directory, a URL, or - for an archive on stdin.",
            )
    for secret in map(fields_of, arguments.given("--secret")):
        file = secret.get("src") or secret.get("source")
        if file and secret.get("type") != "env" and not Path(file).exists():
            raise UsageError(f"--secret {secret.get('id', '')} is {file}, which does not exist.")


def refuse_names(arguments: Arguments, engine: Engine) -> None:
    """Raises `UsageError` for a name that the engine does not accept."""
    for name in arguments.names:
        try:
            engine.has_image(name)
        except InvalidRequest as error:  # only newer ones accept an IPv6 address
            raise UsageError(
                f"This Docker engine accepts no image with the name {name}.",
                hint="Pass a name with a host name: -t registry.example:5000/shop:1.4",
            ) from error


@contextmanager
def building(
    given: BuildInput, request: EmbedRequest, docker: Docker, builder: Builder
) -> Iterator[ReadyImage]:
    """Builds and embeds; the image gets its names, files and pushes when the block succeeds.

    Raises `ChildFailed` with docker's own exit code if the build fails, and as
    `EngineDestination.embed` does.
    """
    arguments, engine = given.arguments, docker.connect()
    request.listener.note(f"Building with {builder}.")
    for sentence in shown(arguments, request.bundles):
        request.listener.warning(sentence)
    left_out = given.left_out(request.bundles)
    left_out.tell(request.listener)
    build = DockerBuild(docker, builder, given, request.bundles, left_out)
    with left_out.explaining():
        if bypasses_image_store.applies_to(build, engine):
            with bypasses_image_store.building(build, engine, request) as image:
                yield image
            return
        base = _loaded(build)
        if request.bundles:
            request.listener.phase("Embedding the state in the image")
        try:
            with naming(engine, arguments, base, request) as image:
                yield image
        finally:
            # BuildKit has its own cache.
            if builder.is_buildkit:
                remove_unnamed(engine, base)
            elif request.bundles:
                request.listener.note(
                    "The code's image stays untagged: it is the classic builder's cache. "
                    "docker image prune removes it."
                )


@contextmanager
def naming(
    engine: Engine, arguments: Arguments, base: str, request: EmbedRequest
) -> Iterator[ReadyImage]:
    """Embeds into an image in the engine; names, saves and pushes it when the block succeeds."""
    if arguments.shape:
        request.listener.warning(
            f"The image goes through the engine, which ignores {output_of(arguments.shape)}."
        )
    with EngineDestination(engine, base, arguments.names).embed(request) as made:
        image = ReadyImage(made, arguments)
        yield image
    outputs.carry_out(engine, arguments, image.image_id, request.listener)
    if arguments.only_files:
        discard(engine, image.image_id)


def _loaded(build: DockerBuild) -> str:
    """Builds into the engine and returns the ID of the image, which has no name yet."""
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as name:
        folder = Path(name)
        iidfile = folder / "iid"
        is_buildx = build.builder.kind == "buildx"
        build.run(folder, ["--iidfile", str(iidfile), *(["--load"] if is_buildx else [])])
        if not iidfile.exists():
            raise ToolFailed("docker build succeeded but did not report which image it built.")
        return iidfile.read_text().strip()
