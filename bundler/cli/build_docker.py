"""``state-bundler build docker`` and ``build bake``: docker builds, and the state is on top."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import click

from bundler.cli.build_options import BuildArguments
from bundler.cli.help import Grouped
from bundler.cli.options import EVERY_BYTE, IMAGE_PATH, Options, formats, narrator, option, takes
from bundler.cli.outcome import show_verdict, show_verdicts

_META = "bundler.docker.arguments"


class Wrapping(Grouped):
    """Parses its own options in any position and passes the rest to docker unchanged.

    click would find our short options inside docker's, such as the q in ``-tsquid``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from bundler.artifacts.image.engine.arguments import split_own

        mine, theirs = split_own(args, takes_value(self))
        ctx.meta[_META] = theirs
        return super().parse_args(ctx, ["--help"] if "-h" in theirs else mine)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        theirs = (
            "[BAKE'S ARGUMENTS]" if self.name == "bake" else "[DOCKER BUILD'S ARGUMENTS] CONTEXT"
        )
        return [*super().collect_usage_pieces(ctx), theirs]


def takes_value(command: click.Command) -> dict[str, bool]:
    """A command's options as ``--name``, and whether each takes a value."""
    context = click.Context(command)
    return {
        name: not (isinstance(option, click.Option) and option.is_flag)
        for option in command.get_params(context)
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--")
    }


class DockerArguments(Options):
    image_path: str | None = IMAGE_PATH
    every_byte: bool = EVERY_BYTE
    style: str = formats("json")
    building: BuildArguments


@click.command(
    name="docker", cls=Wrapping, short_help="Build an image with docker and its own arguments."
)
@click.pass_context
@takes("given", DockerArguments)
def build_docker(ctx: click.Context, given: DockerArguments) -> None:
    """Build an image with docker and its own arguments, with the state as the top layer.

    The build never sees the state, so new state does not invalidate cached layers. No name (-t)
    or file (--iidfile, -o) is written before the engine has confirmed the digest of the state's
    layer.

    \b
    Example:
      state-bundler build docker -t shop:1.4 .
    """
    from bundler.artifacts.image.engine import dockerbuild
    from bundler.artifacts.image.engine.arguments import parse
    from bundler.workflows.build import docker

    arguments = parse(ctx.meta[_META])
    if arguments.asks:
        ctx.exit(dockerbuild.plain("build", *ctx.meta[_META]))
    quiet = given.building.quiet or arguments.quiet
    made = docker.build(
        arguments,
        given.building.request(),
        narrator(quiet=quiet),
        image_path=given.image_path,
        every_byte=given.every_byte,
        quiet=quiet,
    )
    is_taken = any(fields.get("dest") == "-" for fields in arguments.results)  # by an archive
    with redirect_stdout(sys.stderr if is_taken else sys.stdout):
        if quiet and given.style == "text":
            click.echo(made.digest)
        else:
            show_verdict(made.verdict, made.name, given.style)


class BakeArguments(Options):
    chosen: tuple[str, ...] = option(
        "--state-target TARGET",
        "A target or group to embed the state in (repeatable). Default: the targets that are "
        "built from a project.",
    )
    every_byte: bool = EVERY_BYTE
    style: str = formats("json")
    building: BuildArguments


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

    arguments = ctx.meta[_META]
    if baking.asks(arguments):
        ctx.exit(dockerbuild.plain("buildx", "bake", *arguments))
    request, listener = given.building.request(), narrator(quiet=given.building.quiet)
    made = bake.build(
        arguments, request, listener, chosen=given.chosen, every_byte=given.every_byte
    )
    show_verdicts([(each.verdict, each.name) for each in made], given.style)
