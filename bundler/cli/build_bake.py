"""``state-bundler build bake``: docker buildx bake, with the state in the targets that need it."""

from __future__ import annotations

import click

from bundler.cli.build_docker import META, Wrapping
from bundler.cli.build_options import BuildArguments
from bundler.cli.options import Options, every_byte, formats, narrator, nested, option, takes
from bundler.cli.outcome import show_verdicts


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
    from bundler.artifacts.image.engine import baking, dockerbuild
    from bundler.workflows.build import bake

    arguments = ctx.meta[META]
    if baking.asks(arguments):
        ctx.exit(dockerbuild.plain("buildx", "bake", *arguments))
    request, listener = given.building.request(), narrator(quiet=given.building.quiet)
    made = bake.build(
        arguments, request, listener, chosen=given.chosen, every_byte=given.every_byte
    )
    show_verdicts([(each.verdict, each.name) for each in made], given.style)
