"""``state-bundler extract``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bundler.cli.console import Console
from bundler.cli.options import ARTIFACT, NewDirectory, Options, formats, narrator, option, takes
from bundler.cli.outcome import content

if TYPE_CHECKING:
    from bundler.artifacts.extract import Extracted


class ExtractArguments(Options):
    output: NewDirectory = option("-o, --output", "A new or empty directory.", required=True)
    style: str = formats("json")


@click.command()
@ARTIFACT
@takes("given", ExtractArguments)
def extract(artifact: str, given: ExtractArguments) -> None:
    """Verify ARTIFACT and extract its states into a directory.

    \b
    Examples:
      state-bundler extract app.pex -o states
      state-bundler extract oci:build/image -o states
    """
    from bundler.artifacts.extract import extract as take_out
    from bundler.artifacts.open import open_artifact

    narrator(quiet=given.style == "json").working(f"Reading {artifact}")
    with open_artifact(artifact) as opened:
        found = take_out(opened, given.output)
    show_extracted(found, given.style)


def show_extracted(found: Sequence[Extracted], style: str) -> None:
    if style == "json":
        from bundler.cli.documents import Extract, print_document, shipped

        directories = [shipped(str(item.target), item.manifest) for item in found]
        print_document(Extract, directories=directories)
        return
    console = Console(sys.stdout)
    for item in found:
        console.line(f"{item.target}: {content(item.manifest)}")
