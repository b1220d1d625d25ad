"""``state-bundler sign``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from bundler.cli import completion
from bundler.cli.console import Console
from bundler.cli.options import FILE, format_option


@click.command()
@click.argument("artifact", shell_complete=completion.artifacts)
@click.option(
    "--ssh-key",
    "key",
    type=FILE,
    required=True,
    help="An SSH key. Pass the public key if an agent holds the private one.",
)
@click.option(
    "--signature",
    type=FILE,
    help="Path of the signature file.  [ARTIFACT.sig; for an image: its registry]",
)
@format_option
def sign(artifact: str, key: Path, signature: Path | None, style: str) -> None:
    """Verify ARTIFACT and sign it with an SSH key; `verify --signed-by` checks the signature.

    \b
    Examples:
      state-bundler sign app.pex --ssh-key ~/.ssh/id_ed25519
      state-bundler verify app.pex --signed-by allowed_signers
      state-bundler sign docker://ghcr.io/acme/shop:1.4 --ssh-key id_ed25519
    """
    from bundler.artifacts.image.ociread import OciImage
    from bundler.artifacts.open import open_artifact
    from bundler.artifacts.verify import verify
    from bundler.workflows import signature as signatures

    with open_artifact(artifact) as opened, tempfile.TemporaryDirectory() as folder:
        verdict = verify(opened)
        verdict.raise_for_problems()
        message = signatures.statement(opened, verdict)
        if isinstance(opened, OciImage) and opened.kind == "registry" and signature is None:
            made = Path(folder) / "statement.sig"
            signatures.sign(message, key, made)
            where = signatures.attach(opened, made)
        else:
            target = signature or signatures.sidecar(artifact)
            signatures.sign(message, key, target)
            where = str(target)
    if style == "json":
        from bundler.cli.documents import Sign, print_document

        print_document(Sign, signature=where)
    else:
        Console(sys.stdout).line(where)
