"""``state-bundler guard``: git's verdict on the state directories."""

from __future__ import annotations

import click

from bundler import listener
from bundler.cli.guard_command import FORMATS, GuardArguments, answer
from bundler.guard.verdict import Moment, Movement


@click.command()
@click.option(
    "--staged", "moment", flag_value="staged", help="What the commit being made will contain."
)
@click.option("--push", "moment", flag_value="push", help="The commits that are being pushed.")
@click.option(
    "--receive", "moment", flag_value="receive", help="The commits that are being received."
)
@click.option("--history", "moment", flag_value="history", help="Everything that any ref reaches.")
@click.option(
    "--allow",
    multiple=True,
    metavar="PATTERN",
    help="A path that is committed on purpose; repeatable.",
)
@click.option("--strict", is_flag=True, help="A warning is a failure.")
@click.option(
    "--fix", is_flag=True, help="Take state out of the index, add the ignore rule; then ask again."
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--remote", default="", metavar="NAME", help="The remote that is pushed to.")
@click.option("-C", "root", default=".", metavar="DIR", help="Look from here.")
@click.argument("directories", nargs=-1, metavar="[DIR]...")
@click.pass_context
def guard(
    ctx: click.Context,
    *,
    moment: Moment | None,
    allow: tuple[str, ...],
    strict: bool,
    fix: bool,
    form: str,
    remote: str,
    root: str,
    directories: tuple[str, ...],
) -> None:
    """Ask git whether any state is in the repository, or could slip in.

    Without an option for the moment: the index, HEAD and the ignore rules, as before a build.
    DIR names a state directory beside those that are found by name and configuration.
    """
    request = GuardArguments(
        moment=moment or "build",
        directories=directories,
        allow=allow,
        strict=strict,
        format=form,
        root=root,
        fix=fix,
        movement=Movement(remote=remote),
    )
    listener.of_process = listener.SILENT  # it has a word of its own
    ctx.exit(answer(request))
