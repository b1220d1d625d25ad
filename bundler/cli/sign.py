"""``state-bundler sign``."""

from __future__ import annotations

import sys

import click

from bundler.cli.console import Console
from bundler.cli.options import ARTIFACT, SIGNATURE_FILE, File, Options, formats, option, takes


class SignArguments(Options):
    key: File = option(
        "--ssh-key",
        "An SSH key. Pass the public key if an agent holds the private one.",
        required=True,
    )
    signature: File | None = SIGNATURE_FILE
    style: str = formats("json")


@click.command()
@ARTIFACT
@takes("given", SignArguments)
def sign(artifact: str, given: SignArguments) -> None:
    """Verify ARTIFACT and sign it with an SSH key; `verify --signed-by` checks the signature.

    \b
    Examples:
      state-bundler sign app.pex --ssh-key ~/.ssh/id_ed25519
      state-bundler verify app.pex --signed-by allowed_signers
      state-bundler sign docker://ghcr.io/acme/shop:1.4 --ssh-key id_ed25519
    """
    from bundler.workflows.signature import sign_artifact

    where = sign_artifact(artifact, given.key, given.signature)
    if given.style == "json":
        from bundler.cli.documents import Sign, print_document

        print_document(Sign, signature=where)
    else:
        Console(sys.stdout).line(where)
