"""``state-bundler embed``."""

from __future__ import annotations

import click

from bundler.cli.build_options import BuildArguments
from bundler.cli.help import Grouped
from bundler.cli.options import every_byte_option, format_option, image_path_option, narrator, takes
from bundler.cli.outcome import show_outcome


@click.command(cls=Grouped)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option(
    "-t",
    "--tag",
    "tags",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Tag of the new image (repeatable). {content} and {environment} are substituted.",
)
@image_path_option
@every_byte_option
@format_option
@takes("building", BuildArguments)
def embed(
    *,
    sources: tuple[str, ...],
    tags: tuple[str, ...],
    image_path: str | None,
    every_byte: bool,
    style: str,
    building: BuildArguments,
) -> None:
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
    from bundler.artifacts.names import ArtifactName
    from bundler.cli.build_docker import places_of
    from bundler.workflows.embed import embed as embed_images
    from bundler.workflows.update import require_engine

    for source in sources:
        require_engine(ArtifactName.parse(source).without_asking())
    listener = narrator(quiet=building.quiet or style == "json")
    prepared = building.prepare_to_replace(listener)
    if not prepared.bundles:
        raise click.UsageError("There is no state to embed. Select its project with --project.")
    places = places_of(prepared, image_path)
    made = embed_images(sources, tags, prepared, listener, places=places, every_byte=every_byte)
    show_outcome(made, style)
