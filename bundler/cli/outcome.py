"""The resulting artifact, as text or JSON, and as outputs for later steps of a CI job."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.console import as_json
from bundler.cli.options import show_verdict
from bundler.version import SCHEMA_VERSION

if TYPE_CHECKING:
    from bundler.artifacts.embedding import EmbedResult

format_option = click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True
)


def show_outcome(made: EmbedResult, style: str) -> None:
    """Prints to stdout and to the file named by ``GITHUB_OUTPUT``."""
    tell_github(_outputs(made))
    if style == "json":
        click.echo(as_json({"schemaVersion": SCHEMA_VERSION, **_outputs(made)}))
    else:
        show_verdict(made.verdict, made.name)


def _outputs(made: EmbedResult) -> dict[str, Any]:
    return {"changed": made.changed, "image": made.name, "digest": made.digest}


def tell_github(outputs: dict[str, Any]) -> None:
    """Hands values to later steps of a GitHub job."""
    path = os.environ.get("GITHUB_OUTPUT")
    if path:
        with open(path, "a", encoding="utf-8") as stream:
            for name, value in outputs.items():
                text = str(value).lower() if isinstance(value, bool) else value or ""
                stream.write(f"{name}={text}\n")
