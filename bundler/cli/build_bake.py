"""``state-bundler build bake``: docker buildx bake, with the state in the targets that need it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.build_docker import (
    META,
    Wrapping,
    places_of,
    refuse_relative,
    wanted_places,
)
from bundler.cli.build_options import BuildArguments
from bundler.cli.options import Options, every_byte, formats, narrator, nested, option, takes
from bundler.cli.outcome import show_verdicts

if TYPE_CHECKING:
    from bundler.artifacts.image.engine.baking import Baking
    from bundler.project.projects import Project


class BakeArguments(Options):
    chosen: tuple[str, ...] = option(
        "--state-target TARGET",
        "A target or group to embed the state in (repeatable). Default: the targets whose "
        "context contains a project.",
    )
    every_byte: bool = every_byte()
    style: str = formats("json")
    building: BuildArguments = nested(BuildArguments)


@click.command(
    name="bake",
    cls=Wrapping,
    short_help="Build images with docker buildx bake and its own arguments.",
)
@click.pass_context
@takes("given", BakeArguments)
def build_bake(ctx: click.Context, given: BakeArguments) -> None:
    """Build images with docker buildx bake and its own arguments, with the state as the top layer.

    \b
    Example:
      state-bundler build bake -f docker-bake.hcl app
    """
    from bundler.artifacts.image.engine import baking
    from bundler.artifacts.image.engine.building import foresee
    from bundler.artifacts.image.engine.connection import Docker
    from bundler.workflows.pipeline import verify_and_load

    words, docker = ctx.meta[META], Docker.from_environment()
    if baking.asks(words):
        from bundler.artifacts.image.engine import dockerbuild

        ctx.exit(dockerbuild.plain("buildx", "bake", *words))
    docker.refuse_silence()
    found = baking.resolve(docker, words)
    selected = found.chosen(given.chosen)
    baking.preflight(found, selected)
    listener = narrator(quiet=given.building.quiet)
    targets: list[str] = []

    def check(projects: Sequence[Project]) -> None:
        refuse_relative(None, projects)
        targets.extend(selected or _with_code(found, projects))
        baking.preflight(found, targets, projects)
        engine = docker.connect_late()
        for name in targets:
            wanted = wanted_places(found.arguments(name), projects)
            foresee(found.given(name), engine, wanted, listener)

    prepared = given.building.prepare_and_load(listener, check=check)
    listener.phase("Building the images")
    listener.hands_over(silent=False)
    places = places_of(prepared, None)
    request = prepared.request(listener, places=places, every_byte=given.every_byte)
    with baking.building_targets(found, targets, request) as images:
        verdicts = [verify_and_load(image.artifact, prepared, listener) for image in images]
    named = [
        (verdict, image.called or verdict.name)
        for image, verdict in zip(images, verdicts, strict=True)
    ]
    show_verdicts(named, given.style)


def _with_code(found: Baking, projects: Sequence[Project]) -> list[str]:
    """The targets whose context contains a project or is inside one."""
    roots = [project.root.resolve() for project in projects]
    contexts = {name: Path(found.context(name)).resolve() for name in found.final}
    targets = [
        name
        for name, context in contexts.items()
        if any(root.is_relative_to(context) or context.is_relative_to(root) for root in roots)
    ]
    if not targets:
        raise click.UsageError(
            "No bake target has the project in its context; pass --state-target."
        )
    return targets
