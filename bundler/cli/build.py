"""``state-bundler build``: check git, refresh, build, embed, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bundler.cli.build_docker import build_bake, build_docker
from bundler.cli.build_options import BuildArguments, EmbedArguments
from bundler.cli.help import Grouped
from bundler.cli.options import (
    IMAGE_PATH,
    File,
    NewDirectory,
    Options,
    flag,
    formats,
    narrator,
    option,
    takes,
)
from bundler.cli.outcome import show_verdict
from bundler.errors import UsageError

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
    output: Path | None = option("-o, --output", "Path of the PEX; also among pex's arguments.")
    pex_command: str | None = option(
        "--pex", "The pex command. Default: the project's, else the bundled one."
    )
    style: str = formats("json")
    building: BuildArguments


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
    from bundler.artifacts.python.pex.arguments import parse
    from bundler.workflows.build import pex

    parsed = parse(["-o", str(given.output or ""), *arguments])
    if not parsed.output or (given.output and parsed.output != str(given.output)):
        raise UsageError("build pex needs the path of one PEX.", hint="Pass it: -o PATH")
    request, listener = given.building.request(), narrator(quiet=given.building.quiet)
    made = pex.build(parsed, request, listener, pex=given.pex_command)
    show_verdict(made.verdict, made.name, given.style)


class OciArguments(Options):
    base: str | None = option(
        "--base LAYOUT[:TAG]", "Base image. Without it, the image contains only the state."
    )
    output: str = option("-o, --output LAYOUT[:TAG]", "The image to write.", required=True)
    image_path: str | None = IMAGE_PATH
    style: str = formats("json")
    building: EmbedArguments


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
    from bundler.workflows.build import oci
    from bundler.workflows.build_all import BuildResult, report_result

    request, listener = given.building.request(), narrator(quiet=given.building.quiet)
    made = oci.build(request, given.output, listener, base=given.base, image_path=given.image_path)
    if made is None:
        report_result(BuildResult("none (no state)"))
    else:
        show_verdict(made.verdict, style=given.style)


class WheelArguments(Options):
    output: NewDirectory = option(
        "-o, --output",
        "Directory to write the wheel to.",
        default=Path("dist"),
        show_default=True,
    )
    style: str = formats("json")
    building: BuildArguments


@build.command(
    name="wheel", cls=Grouped, short_help="Build a wheel with the project's own backend."
)
@takes("given", WheelArguments)
def build_wheel(given: WheelArguments) -> None:
    """Build the project's wheel with its own backend, with the state embedded.

    \b
    Example:
      state-bundler build wheel -o dist
    """
    from bundler.workflows.build import wheel

    request, listener = given.building.request(), narrator(quiet=given.building.quiet)
    made = wheel.build(request, given.output, listener)
    show_verdict(made.verdict, made.name, given.style)


build.add_command(build_docker)
build.add_command(build_bake)
