"""``state-bundler predicate``."""

from __future__ import annotations

import click

from bundler.cli.options import ARTIFACT


@click.command()
@ARTIFACT
@click.option("--slsa", is_flag=True, help="Print SLSA provenance v1 instead: code and states.")
@click.option("--directory", metavar="PATH", help="The state directory, if there are several.")
def predicate(artifact: str, slsa: bool, directory: str | None) -> None:
    """Verify ARTIFACT and print a predicate that describes its states, for use in an attestation.

    \b
    Examples:
      state-bundler predicate shop:1.4 > states.json
      cosign attest --type https://state-bundler.io/state-bundle/v1 \\
        --predicate states.json registry/shop@sha256:…
    """
    from bundler.artifacts.open import open_artifact
    from bundler.artifacts.verify import verify
    from bundler.workflows import attestation

    with open_artifact(artifact) as opened:
        verdict = verify(opened)
    verdict.raise_for_problems()
    printed = attestation.slsa(verdict) if slsa else attestation.predicate(verdict, directory)
    click.echo(printed)
