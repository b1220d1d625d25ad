"""``state-bundler update``."""

from __future__ import annotations

import click

from bundler.cli import completion
from bundler.cli.help import Grouped
from bundler.cli.options import (
    BuildArguments,
    LoadArguments,
    build_options,
    load_options,
    narrator,
)
from bundler.cli.outcome import format_option, show_outcome


@click.command(cls=Grouped)
@click.argument("artifact", shell_complete=completion.artifacts)
@click.option("--tag", "new_tag", help="Tag of the new image. Default: {tag}-s{content digest}.")
@click.option("--in-place", is_flag=True, help="Move the image's existing tag instead.")
@click.option(
    "--every-byte",
    is_flag=True,
    help="Read back every byte of the state instead of comparing its layer's digest.",
)
@format_option
@build_options
@load_options
def update(
    *,
    artifact: str,
    new_tag: str | None,
    in_place: bool,
    every_byte: bool,
    style: str,
    building: BuildArguments,
    loading: LoadArguments,
) -> None:
    """Refresh, and replace the state in ARTIFACT without a build.

    A PEX is replaced in place. An image gets a new tag, so that a rollout picks up the new state.
    If the state is unchanged, nothing is written.

    \b
    Examples:
      state-bundler update app.pex
      state-bundler update oci:build/app:latest
      state-bundler update shop:1.4 --refresh missing
      state-bundler update docker://ghcr.io/acme/shop:1.4 --format json
    """
    from bundler.artifacts.names import ArtifactName
    from bundler.workflows.update import open_if_pex, require_engine
    from bundler.workflows.update import update as renew

    if new_tag and in_place:
        raise click.UsageError("--tag and --in-place are mutually exclusive.")
    name = ArtifactName.parse(artifact)
    require_engine(name)  # before minutes are spent on a refresh
    with open_if_pex(name) as before:
        listener = narrator(quiet=building.quiet or style == "json")
        prepared = building.prepare(listener, replaces=artifact)
        prepared = loading.add_to(prepared, by_default=bool(prepared.expected))
        updated = renew(
            name,
            new_tag,
            in_place=in_place,
            prepared=prepared,
            listener=listener,
            every_byte=every_byte,
            before=before,
        )
    if not updated.changed:
        listener.note("The state is unchanged; nothing to update.")
    show_outcome(updated, style)
