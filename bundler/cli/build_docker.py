"""``state-bundler build docker``: docker builds, and the state becomes the top layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.build_options import BuildArguments
from bundler.cli.help import Grouped
from bundler.cli.options import Options, every_byte, formats, image_path, narrator, nested, takes
from bundler.cli.outcome import show_verdict
from bundler.errors import ConfigurationError

if TYPE_CHECKING:
    from bundler.artifacts.image.engine.arguments import Arguments
    from bundler.artifacts.image.engine.dockerbuild import BuildInput
    from bundler.artifacts.image.engine.foreseen import WantedPlaces
    from bundler.listener import Listener
    from bundler.project.projects import Project
    from bundler.workflows.pipeline import Prepared

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
    from bundler.artifacts.image.engine import building as engine_build
    from bundler.artifacts.image.engine import dockerbuild, stdin_context
    from bundler.artifacts.image.engine.arguments import parse
    from bundler.artifacts.image.engine.connection import Docker
    from bundler.workflows.pipeline import verify_and_load

    arguments = parse(ctx.meta[META])
    if arguments.asks:
        ctx.exit(dockerbuild.plain("build", *ctx.meta[META]))
    quiet = given.building.quiet or arguments.quiet
    listener = narrator(quiet=quiet)
    by_stdin = ctx.with_resource(stdin_context.take(arguments))
    docker = Docker.from_environment()
    detected = dockerbuild.Detecting(docker)
    read = dockerbuild.BuildInput(arguments, by_stdin, detected)
    engine_build.preflight(read, listener)
    docker.refuse_silence()  # before minutes are spent on a refresh
    detected.start()
    engine_build.require_buildkit(read, detected)

    def check(projects: Sequence[Project]) -> None:
        refuse_relative(given.image_path, projects)
        for project in projects:
            engine_build.refuse_missing_configuration(read, project.root)
        wanted, engine = wanted_places(arguments, projects, given.image_path), docker.connect_late()
        engine_build.foresee(read, engine, wanted, listener)

    start = _start(read, listener)
    prepared = given.building.prepare_and_load(listener, start=start, check=check)
    listener.phase("Building the image")
    listener.hands_over(silent=quiet)
    request = prepared.request(
        listener,
        places=places_of(prepared, given.image_path),
        hints=_hints(arguments, prepared.projects),
        every_byte=given.every_byte,
    )
    with engine_build.building(read, request, docker, detected()) as image:
        before = next(iter(arguments.tags), None)
        verdict = verify_and_load(image.artifact, prepared, listener, before=before)
    if quiet and given.style == "text":
        click.echo(image.image_id)
    else:
        show_verdict(verdict, image.called, given.style)


def _start(read: BuildInput, listener: Listener) -> Path | None:
    """Where to look for the project: in the context, if it is a local directory."""
    from bundler.project.projects import start_for_context

    if read.root is not None:
        return start_for_context(read.root, read.dockerfile_path)
    listener.note(
        "The context is not a local directory, so --project or the current directory is used."
    )
    return None


def refuse_relative(image_path: str | None, projects: Sequence[Project]) -> None:
    """Raises `ConfigurationError` if the path in the image is relative."""
    named = image_path or projects[0].config.image_path
    if named is not None and not named.startswith("/"):
        raise ConfigurationError(
            f"image-path is {named!r}, which is not absolute.",
            hint=f"Write the whole path in the image, such as /app/{named}.",
        )


def wanted_places(
    arguments: Arguments, projects: Sequence[Project], image_path: str | None = None
) -> WantedPlaces:
    """Where the state of these projects goes in the image, as far as local files show."""
    from bundler.artifacts.image.engine.foreseen import WantedPlaces
    from bundler.workflows.state_from import configured

    places: list[str] = []
    with suppress(ConfigurationError):  # only the interpreter knows
        places = [it.place for project in projects for it in configured(project)]
    return WantedPlaces(
        places,
        image_path or projects[0].config.image_path,
        _hints(arguments, projects),
        certain=all(project.dagster is None for project in projects),
    )


def places_of(prepared: Prepared, image_path: str | None) -> dict[str, str]:
    """The path in the image that the user configured, by the place it replaces."""
    named = image_path or prepared.projects[0].config.image_path
    if named is None:
        return {}
    if len(prepared.bundles) > 1:
        raise click.UsageError(
            "--image-path requires a single state directory, but there are several."
        )
    return {bundle.place: named for bundle in prepared.bundles}


def _hints(arguments: Arguments, projects: Sequence[Project]) -> list[str]:
    """Import roots of projects that the Dockerfile copies with their path in the context."""
    hints = []
    top = Path(arguments.context).resolve()
    for project in projects:
        root = project.root.resolve()
        if root != top and root.is_relative_to(top):
            below = root.relative_to(top).as_posix()
            hints += [f"{below}/src", below]
    return hints
