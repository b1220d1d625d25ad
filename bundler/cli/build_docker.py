"""``state-bundler build docker``: docker builds, and the state becomes the top layer."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import click

from bundler.cli.build_options import BuildArguments
from bundler.cli.help import Grouped
from bundler.cli.options import Options, every_byte, formats, image_path, narrator, nested, takes
from bundler.cli.outcome import show_verdict

META = "bundler.docker.arguments"


class Wrapping(Grouped):
    """Parses its own options in any position and passes the rest to docker unchanged.

    click would find our short options inside docker's, such as the q in ``-tsquid``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from bundler.artifacts.image.engine.arguments import split_own

        mine, theirs = split_own(args, takes_value(self))
        ctx.meta[META] = theirs
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
    image_path: str | None = image_path()
    every_byte: bool = every_byte()
    style: str = formats("json")
    building: BuildArguments = nested(BuildArguments)


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

    arguments = parse(ctx.meta[META])
    if arguments.asks:
        ctx.exit(dockerbuild.plain("build", *ctx.meta[META]))
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
