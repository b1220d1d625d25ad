"""``state-bundler embed``."""

from __future__ import annotations

import click

from bundler.cli.build_options import BuildArguments
from bundler.cli.help import Grouped
from bundler.cli.options import EVERY_BYTE, IMAGE_PATH, Options, formats, narrator, option, takes
from bundler.cli.outcome import show_outcome


class EmbedCommand(Options):
    tags: tuple[str, ...] = option(
        "-t, --tag NAME",
        "Tag of the new image (repeatable). {content} and {environment} are substituted.",
        required=True,
    )
    image_path: str | None = IMAGE_PATH
    every_byte: bool = EVERY_BYTE
    style: str = formats("json")
    building: BuildArguments


@click.command(cls=Grouped)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@takes("given", EmbedCommand)
def embed(sources: tuple[str, ...], given: EmbedCommand) -> None:
    """Refresh, and add the state to images built by any tool. Nothing is built or run.

    SOURCE is an image in a registry (docker://NAME, or a name with its host), in an OCI layout or
    an archive, or in the engine (docker-daemon:NAME). Several become one multi-platform index.
    The layer's digest is confirmed before a tag moves. Without a SOURCE, the image contains only
    state.

    \b
    Examples:
      state-bundler embed ghcr.io/acme/shop@sha256:… --tag ghcr.io/acme/shop:1.4
      state-bundler embed ghcr.io/acme/shop@sha256:… ghcr.io/acme/shop@sha256:… -t 1.4
      state-bundler embed oci:build/image --tag ghcr.io/acme/shop:1.4-{environment} \\
        --environment prod
    """
    from bundler.workflows.embed import refresh_and_embed

    made = refresh_and_embed(
        sources,
        given.tags,
        given.building.request(),
        narrator(quiet=given.building.quiet or given.style == "json"),
        image_path=given.image_path,
        every_byte=given.every_byte,
    )
    show_outcome(made, given.style)
