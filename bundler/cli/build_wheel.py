"""``state-bundler build wheel``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.build_options import BuildArguments
from bundler.cli.help import Grouped
from bundler.cli.options import NewDirectory, Options, formats, narrator, nested, option, takes
from bundler.cli.outcome import show_verdict

if TYPE_CHECKING:
    from bundler.project.projects import Project


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
    from bundler.artifacts.python.blocking import refuse_fifos_of_project
    from bundler.artifacts.python.credentials import AllowedFiles
    from bundler.artifacts.python.wheel.building import building as building_wheel
    from bundler.artifacts.python.wheel.building import command
    from bundler.workflows.pipeline import verify_and_load

    def check(projects: Sequence[Project]) -> None:
        if len(projects) > 1:
            raise click.UsageError("A wheel contains one project: select it with --project.")
        command(projects[0].interpreter.path, projects[0].root, given.output)
        refuse_fifos_of_project(projects[0].root, "the build backend", listener)

    listener = narrator(quiet=given.building.quiet)
    prepared = given.building.prepare_and_load(listener, check=check)
    project = prepared.projects[0]
    python, request = project.interpreter.path, prepared.request(listener)
    allowed = AllowedFiles.of([project])
    with building_wheel(project.root, python, given.output.resolve(), request, allowed) as built:
        verdict = verify_and_load(built.artifact, prepared, listener)
    show_verdict(verdict, str(built.destination), given.style)
