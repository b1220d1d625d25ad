"""``state-bundler verify``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from bundler.cli.console import Console, size


@click.command()
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...")
@click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def verify(artifacts: tuple[str, ...], style: str) -> None:
    """Check that the state in each ARTIFACT is what its manifest says, and nothing more.

    ARTIFACT is a PEX, a directory, an OCI layout (oci:DIR[:TAG]) or an image in the engine.
    Exit code 76 if one does not verify.

    \b
    Examples:
      state-bundler verify app.pex
      state-bundler verify oci:build/image:latest src/shop/defs/.local_defs_state
    """
    from bundler.artifacts.opening import open_artifact
    from bundler.errors import BundlerError, raise_all
    from bundler.verify import Verdict
    from bundler.verify import verify as judge

    verdicts: list[Verdict] = []
    failures: list[BundlerError] = []
    for name in artifacts:
        try:
            with open_artifact(name) as artifact:
                verdict = judge(artifact)
            verdicts.append(verdict)
            verdict.raise_for_problems()
        except BundlerError as error:
            failures.append(error)
    if style == "json":
        click.echo(json.dumps({"schema": 1, "artifacts": [_as_json(item) for item in verdicts]}))
    else:
        _as_text(verdicts)
    raise_all(failures)


def _as_text(verdicts: list[Any]) -> None:
    console = Console(sys.stdout)
    for verdict in verdicts:
        if verdict.all_problems:
            continue
        tick = console.styled(console.sign("✓", "ok"), "green", "bold")
        digest = f" {verdict.digest}" if verdict.digest else ""
        console.line(f"{tick} {verdict.name} ({verdict.kind}){digest}")
        for directory in verdict.directories:
            manifest = directory.manifest
            console.line(
                f"  {directory.path}: {len(manifest.states)} states, "
                f"{size(manifest.size)}, content {manifest.content_digest[:12]}"
            )


def _as_json(verdict: Any) -> dict[str, Any]:
    return {
        "name": verdict.name,
        "kind": verdict.kind,
        "digest": verdict.digest,
        "verified": not verdict.all_problems,
        "problems": list(verdict.problems),
        "directories": [
            {
                "path": directory.path,
                "contentDigest": directory.manifest and directory.manifest.content_digest,
                "problems": list(directory.problems),
            }
            for directory in verdict.directories
        ],
    }
