"""``state-bundler update``."""

from __future__ import annotations

import click

from bundler.cli.build_options import BuildArguments
from bundler.cli.help import Grouped
from bundler.cli.options import (
    ARTIFACTS,
    EVERY_BYTE,
    Options,
    flag,
    formats,
    narrator,
    option,
    takes,
)
from bundler.cli.outcome import show_updates


class UpdateArguments(Options):
    new_tag: str | None = option("--tag", "Tag of the new image. Default: {tag}-s{content digest}.")
    in_place: bool = flag("--in-place", "Move the image's existing tag instead.")
    every_byte: bool = EVERY_BYTE
    style: str = formats("json")
    building: BuildArguments


@click.command(cls=Grouped)
@ARTIFACTS
@takes("given", UpdateArguments)
def update(artifacts: tuple[str, ...], given: UpdateArguments) -> None:
    """Refresh once, and replace the state in each ARTIFACT without a build.

    A PEX is replaced in place. An image gets a new tag, so that a rollout picks up the new state.
    If the state is unchanged, nothing is written. If one ARTIFACT fails after the refresh, the
    others are still updated; the exit code is that of the most serious failure.

    \b
    Examples:
      state-bundler update app.pex
      state-bundler update oci:build/app:latest
      state-bundler update shop:1.4 --refresh missing
      state-bundler update docker://ghcr.io/acme/shop:1.4 --format json
      state-bundler update ghcr.io/acme/shop:1.4 ghcr.io/acme/shop-eu:2.0
    """
    from bundler.workflows.update import update_all

    artifacts = tuple(dict.fromkeys(artifacts))
    if given.new_tag and given.in_place:
        raise click.UsageError("--tag and --in-place are mutually exclusive.")
    if given.new_tag and len(artifacts) > 1:
        raise click.UsageError("--tag requires exactly one ARTIFACT.")
    updates = update_all(
        artifacts,
        given.building.request(),
        narrator(quiet=given.building.quiet or given.style == "json"),
        new_tag=given.new_tag,
        in_place=given.in_place,
        every_byte=given.every_byte,
    )
    show_updates(updates, len(artifacts), given.style)
