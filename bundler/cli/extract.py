"""``state-bundler extract``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bundler.cli import completion
from bundler.cli.console import Console, size
from bundler.system.wording import counted


@click.command()
@click.argument("artifact", shell_complete=completion.artifacts)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A new or empty directory.",
)
def extract(artifact: str, output: Path) -> None:
    """Verify ARTIFACT and extract its states into a directory.

    \b
    Examples:
      state-bundler extract app.pex -o states
      state-bundler extract oci:build/image -o states
    """
    from bundler.artifacts.extract import extract as take_out
    from bundler.artifacts.open import open_artifact

    with open_artifact(artifact) as opened:
        found = take_out(opened, output)
    console = Console(sys.stdout)
    for item in found:
        console.line(
            f"{item.target}: {counted(len(item.manifest.states), 'state')}, "
            f"{size(item.manifest.size)}, "
            f"content {item.manifest.content_digest[:12]}"
        )
