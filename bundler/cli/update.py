"""``state-bundler update``."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.options import (
    build_options,
    load_options,
    narrator,
    prepare_from,
    show_verdict,
    with_load_check,
)

if TYPE_CHECKING:
    from bundler.update import Updated


@click.command()
@click.argument("artifact")
@click.option("--tag", "new_tag", help="The new image's tag. Default: {tag}-s{content digest}.")
@click.option("--in-place", is_flag=True, help="Move the image's own tag.")
@click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@build_options
@load_options
def update(artifact: str, new_tag: str | None, in_place: bool, style: str, **given: Any) -> None:
    """Refresh, and put the state into ARTIFACT without building it again.

    A PEX is replaced in place. An image gets a new tag, so that a roll-out notices the new state.
    Where the state is unchanged nothing is made.

    \b
    Examples:
      state-bundler update app.pex
      state-bundler update oci:build/app:latest
      state-bundler update shop:1.4 --refresh missing
    """
    from bundler.update import update as renew

    if new_tag and in_place:
        raise click.UsageError("--tag and --in-place exclude each other.")
    listener = narrator(quiet=given.pop("quiet") or style == "json")
    load_check = with_load_check(given)
    prepared = load_check(prepare_from(given, listener))
    updated = renew(artifact, new_tag, in_place=in_place, prepared=prepared, listener=listener)
    _tell_github(updated)
    if style == "json":
        click.echo(json.dumps({"schema": 1, **_outputs(updated)}))
        return
    if not updated.changed:
        listener.note("The state is unchanged: nothing was made.")
    show_verdict(updated.verdict, updated.name)


def _outputs(updated: Updated) -> dict[str, Any]:
    return {"changed": updated.changed, "image": updated.name, "digest": updated.digest}


def _tell_github(updated: Updated) -> None:
    """Hands the outcome to the steps that follow in a GitHub Actions job."""
    path = os.environ.get("GITHUB_OUTPUT")
    if path:
        with open(path, "a", encoding="utf-8") as stream:
            for name, value in _outputs(updated).items():
                text = str(value).lower() if isinstance(value, bool) else value or ""
                stream.write(f"{name}={text}\n")
