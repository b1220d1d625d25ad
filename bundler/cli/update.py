"""``state-bundler update``."""

from __future__ import annotations

from contextlib import ExitStack

import click

from bundler.cli import completion
from bundler.cli.build_options import BuildArguments
from bundler.cli.help import Grouped
from bundler.cli.options import Options, every_byte, flag, formats, narrator, nested, option, takes
from bundler.cli.outcome import UpdateOutcome, shown_at_the_end
from bundler.errors import BundlerError


class UpdateArguments(Options):
    new_tag: str | None = option(
        "--tag", help="Tag of the new image. Default: {tag}-s{content digest}."
    )
    in_place: bool = flag("--in-place", help="Move the image's existing tag instead.")
    every_byte: bool = every_byte()
    style: str = formats("json")
    building: BuildArguments = nested(BuildArguments)


@click.command(cls=Grouped)
@click.argument(
    "artifacts", shell_complete=completion.artifacts, nargs=-1, required=True, metavar="ARTIFACT..."
)
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
    from bundler.artifacts.names import ArtifactName
    from bundler.artifacts.open import shared_connections
    from bundler.workflows.update import open_if_pex, require_engine
    from bundler.workflows.update import update as renew

    artifacts = tuple(dict.fromkeys(artifacts))
    if given.new_tag and given.in_place:
        raise click.UsageError("--tag and --in-place are mutually exclusive.")
    if given.new_tag and len(artifacts) > 1:
        raise click.UsageError("--tag requires exactly one ARTIFACT.")
    names = [ArtifactName.parse(artifact) for artifact in artifacts]
    for name in names:  # before minutes are spent on a refresh
        require_engine(name)
    with ExitStack() as stack:
        first = stack.enter_context(open_if_pex(names[0]))
        for name in names[1:]:  # the names in many large files would fill the memory
            with open_if_pex(name):
                pass
        connections = stack.enter_context(shared_connections(names))
        listener = narrator(quiet=given.building.quiet or given.style == "json")
        prepared = given.building.prepare_to_replace(listener, replaces=artifacts)
        outcomes = stack.enter_context(shown_at_the_end(len(names), given.style))
        for name in names:
            try:
                made = renew(
                    name,
                    given.new_tag,
                    in_place=given.in_place,
                    prepared=prepared,
                    listener=listener,
                    every_byte=given.every_byte,
                    before=first if name == names[0] else None,
                    connections=connections,
                )
            except BundlerError as error:  # it does not stop the others
                outcomes.append(UpdateOutcome(str(name), None, error))
                continue
            if not made.changed:
                listener.note(f"The state of {name} is unchanged; nothing to update.")
            outcomes.append(UpdateOutcome(str(name), made))
