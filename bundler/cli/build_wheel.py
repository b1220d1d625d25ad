"""``state-bundler build wheel``."""

from __future__ import annotations

from pathlib import Path

import click

from bundler.cli.build_options import BuildArguments
from bundler.cli.help import Grouped
from bundler.cli.options import NewDirectory, Options, formats, narrator, nested, option, takes
from bundler.cli.outcome import show_verdict


class WheelArguments(Options):
    output: NewDirectory = option(
        "-o, --output",
        "Directory to write the wheel to.",
        default=Path("dist"),
        show_default=True,
    )
    style: str = formats("json")
    building: BuildArguments = nested(BuildArguments)


@click.command(
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
