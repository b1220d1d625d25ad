"""``state-bundler build wheel``."""

from __future__ import annotations

from pathlib import Path

import click

from bundler.cli.help import Grouped
from bundler.cli.options import BuildArguments, build_options, narrator, show_verdict


@click.command(
    name="wheel", cls=Grouped, short_help="Build a wheel with the project's own backend."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("dist"),
    show_default=True,
    help="Directory to write the wheel to.",
)
@build_options
def build_wheel(output: Path, building: BuildArguments) -> None:
    """Build the project's wheel with its own backend, with the state embedded.

    \b
    Example:
      state-bundler build wheel -o dist
    """
    from bundler.artifacts.python.wheel.building import building as building_wheel
    from bundler.workflows.pipeline import read_back

    listener = narrator(quiet=building.quiet)
    prepared = building.prepare(listener)
    project = prepared.projects[0]
    if len(prepared.projects) > 1:
        raise click.UsageError("A wheel contains one project: select it with --project.")
    python, request = project.interpreter.path, prepared.request(listener)
    with building_wheel(project.root, python, output.resolve(), request) as built:
        verdict = read_back(built.artifact, prepared.bundles)
    show_verdict(verdict, name=str(built.destination))
