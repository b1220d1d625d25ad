"""``state-bundler build``: check git, refresh, build, embed, verify."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.build_bake import build_bake
from bundler.cli.build_docker import build_docker, places_of, refuse_relative
from bundler.cli.build_options import BuildArguments, EmbedArguments
from bundler.cli.build_wheel import build_wheel
from bundler.cli.help import Grouped
from bundler.cli.options import (
    File,
    Options,
    flag,
    formats,
    image_path,
    narrator,
    nested,
    option,
    takes,
)
from bundler.cli.outcome import show_verdict

if TYPE_CHECKING:
    from bundler.project.projects import Project

_REST = "bundler.build.rest"


class _BuildGroup(click.Group):
    """With ``--each``, runs the rest of the command line once per project, in its own process."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["--all"]:
            ctx.fail(
                "Unknown option '--all'.\n`build --each KIND` builds an artifact of each project,\n"
                "`build KIND --all` one artifact of all projects."
            )
        # The subcommand and its arguments; empty if there is none.
        _, rest, _ = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[_REST] = rest
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        given = ctx.params
        if given["each"]:
            from bundler.cli.build_all import build_all

            return ctx.exit(build_all(ctx.meta[_REST], given["workers"], given["report"]))
        if given["workers"] is not None or given["report"] is not None:
            raise click.UsageError("--workers and --report require --each, before the kind.")
        return super().invoke(ctx)


class EachArguments(Options):
    each: bool = flag("--each", "Build an artifact of each project of the workspace.")
    workers: int | None = option("--workers", "Number of concurrent builds with --each.  [4]")
    report: File | None = option("--report", "Write a JSON report of --each.")


@click.group(cls=_BuildGroup)
@takes("_", EachArguments)
def build(_: EachArguments) -> None:
    """Check git, refresh, build, embed and verify. Any failure leaves no artifact behind.

    With --each, the rest of the command line runs once per project, in the project's directory.
    {name} is the project's name, {path} its path, and {here} the current directory.

    \b
    Example:
      state-bundler build --each docker -t 'shop/{name}:1.4' .
    """


class BuildPexArguments(Options):
    output: Path = option("-o, --output", "Path of the PEX.", required=True)
    pex_command: str | None = option(
        "--pex", "The pex command. Default: the project's, else the bundled one."
    )
    style: str = formats("json")
    building: BuildArguments = nested(BuildArguments)


@build.command(
    name="pex",
    cls=Grouped,
    short_help="Build a PEX with pex and its own arguments.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- [PEX ARGUMENTS]...")
@takes("given", BuildPexArguments)
def build_pex(arguments: tuple[str, ...], given: BuildPexArguments) -> None:
    """Build a PEX with pex and its own arguments, with the state embedded.

    \b
    Example:
      state-bundler build pex -o app.pex -- -D src -r requirements.txt --venv
    """
    from bundler.artifacts.python.credentials import AllowedFiles
    from bundler.artifacts.python.pex.arguments import parse
    from bundler.artifacts.python.pex.building import building as building_pex
    from bundler.artifacts.python.pex.building import find_pex, refuse_unbuildable
    from bundler.workflows.pipeline import verify_and_load

    listener = narrator(quiet=given.building.quiet)
    parsed = parse([*arguments, "-o", str(given.output)])

    def check(projects: Sequence[Project]) -> None:
        refuse_unbuildable(parsed, projects, given.pex_command, listener)

    prepared = given.building.prepare_and_load(listener, check=check)
    command = find_pex(prepared.projects[0].interpreter.path, given.pex_command)
    allowed = AllowedFiles.of(prepared.projects)
    with building_pex(command, parsed, prepared.request(listener), allowed) as built:
        verdict = verify_and_load(built.artifact, prepared, listener, before=str(built.destination))
    show_verdict(verdict, str(built.destination), given.style)


class OciArguments(Options):
    base: str | None = option(
        "--base LAYOUT[:TAG]", "Base image. Without it, the image contains only the state."
    )
    output: str = option("-o, --output LAYOUT[:TAG]", "The image to write.", required=True)
    image_path: str | None = image_path()
    style: str = formats("json")
    building: EmbedArguments = nested(EmbedArguments)


@build.command(
    name="oci", cls=Grouped, short_help="Build an image in an OCI layout, without an engine."
)
@takes("given", OciArguments)
def build_oci(given: OciArguments) -> None:
    """Add the state to an image in an OCI layout, without an engine.

    Without --base, the image contains only the state, for use with `COPY --from`.

    \b
    Examples:
      state-bundler build oci --base build/app -o build/app-with-state
      state-bundler build oci -o build/state
    """
    from bundler.artifacts.names import LATEST, ArtifactName
    from bundler.workflows.build_all import BuildResult, is_one_of_all, report_result
    from bundler.workflows.embed import embed

    target = ArtifactName.layout(given.output)
    sources = [str(ArtifactName.layout(given.base))] if given.base else []
    listener = narrator(quiet=given.building.quiet)
    prepared = given.building.prepare(
        listener, check=lambda it: refuse_relative(given.image_path, it)
    )
    if not (sources or prepared.bundles) and is_one_of_all():
        report_result(BuildResult("none (no state)"))
        return
    tags = [str(target.tagged(target.tag or LATEST))]
    places = places_of(prepared, given.image_path)
    show_verdict(embed(sources, tags, prepared, listener, places=places).verdict, style=given.style)


build.add_command(build_docker)
build.add_command(build_bake)
build.add_command(build_wheel)
