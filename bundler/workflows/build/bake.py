"""``build bake``: docker buildx bake, with the state in the targets that need it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bundler.artifacts.embedding import EmbedResult
from bundler.artifacts.image.engine import baking
from bundler.artifacts.image.engine.building import refuse_names
from bundler.artifacts.image.engine.connection import Docker
from bundler.errors import UsageError
from bundler.listener import Listener
from bundler.project.projects import Project
from bundler.workflows.image_places import places_of, refuse_relative
from bundler.workflows.pipeline import StateRequest, prepare, verify_and_load


def build(
    arguments: Sequence[str],
    request: StateRequest,
    listener: Listener,
    *,
    chosen: Sequence[str] = (),
    every_byte: bool = False,
) -> list[EmbedResult]:
    """arguments: bake's own. chosen: targets or groups; empty for those with a project.

    Raises as `baking.resolve`, `prepare` and `baking.building_targets` do.
    """
    docker = Docker.from_environment()
    docker.refuse_missing()
    found = baking.resolve(docker, arguments)
    selected = found.chosen(chosen)
    baking.preflight(found, selected)
    projects = request.selection.find(listener)
    refuse_relative(None, projects)
    targets = selected or _with_code(found, projects)
    if without := [name for name in found.final if name not in targets]:
        listener.note(f"Without state: {', '.join(without)}. To add it, pass --state-target.")
    baking.preflight(found, targets, projects)
    engine = docker.connect()
    for name in targets:
        refuse_names(found.arguments(name), engine)
    with prepare(projects, request, listener, loads=True) as prepared:
        listener.phase("Building the images")
        listener.hands_over(silent=False)
        places = places_of(prepared)
        embedding = prepared.request(listener, places=places, every_byte=every_byte)
        with baking.building_targets(found, targets, embedding) as images:
            verdicts = [verify_and_load(image.artifact, prepared, listener) for image in images]
        return [
            EmbedResult(image.called or verdict.name, changed=True, verdict=verdict)
            for image, verdict in zip(images, verdicts, strict=True)
        ]


def _with_code(found: baking.Baking, projects: Sequence[Project]) -> list[str]:
    """The targets that are built from a folder which contains a project or is inside one."""
    roots = [project.root.resolve() for project in projects]
    targets = [
        name
        for name in found.final
        if any(
            root.is_relative_to(folder) or folder.is_relative_to(root)
            for folder in map(Path.resolve, found.folders(name))
            for root in roots
        )
    ]
    if not targets:
        raise UsageError(
            "No bake target has the project in its context.", hint="Name one with --state-target."
        )
    return targets
