"""``build docker``: docker builds, and the state becomes the top layer."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

from bundler.artifacts.embedding import EmbedResult
from bundler.artifacts.image.engine import building, stdin_context
from bundler.artifacts.image.engine.arguments import Arguments
from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.dockerbuild import BuildInput, detect
from bundler.listener import Listener
from bundler.project.projects import start_for_context
from bundler.workflows.image_places import (
    import_root_hints,
    places_of,
    refuse_relative,
)
from bundler.workflows.pipeline import StateRequest, prepare, verify_and_load


def build(
    arguments: Arguments,
    request: StateRequest,
    listener: Listener,
    *,
    image_path: str | None = None,
    every_byte: bool = False,
    quiet: bool = False,
) -> EmbedResult:
    """arguments: docker's own. quiet: whether docker prints nothing, either.

    Raises as `building.preflight`, `prepare` and `building.building` do.
    """
    docker = Docker.from_environment()
    with stdin_context.take(arguments) as piped:
        detected = cache(partial(detect, docker))
        given = BuildInput(arguments, piped, detected)
        building.preflight(given, listener)
        docker.refuse_missing()  # before minutes are spent on a refresh
        building.require_buildkit(given, detected)
        projects = request.selection.find(listener, _start(given, listener))
        refuse_relative(image_path, projects)
        for project in projects:
            building.refuse_missing_configuration(given, project.root)
        building.refuse_names(arguments, docker.connect())
        with prepare(projects, request, listener, loads=True) as prepared:
            listener.phase("Building the image")
            listener.hands_over(silent=quiet)
            embedding = prepared.request(
                listener,
                places=places_of(prepared, image_path),
                hints=import_root_hints(arguments, projects),
                every_byte=every_byte,
            )
            with building.building(given, embedding, docker, detected()) as image:
                before = next(iter(arguments.names), None)
                verdict = verify_and_load(image.artifact, prepared, listener, before=before)
            return EmbedResult(image.called or verdict.name, changed=True, verdict=verdict)


def _start(given: BuildInput, listener: Listener) -> Path | None:
    """Where to look for the project: in the context, if it is a local directory."""
    if given.root is not None:
        return start_for_context(given.root, given.dockerfile_path)
    listener.note(
        "The context is not a local directory, so --project or the current directory is used."
    )
    return None
