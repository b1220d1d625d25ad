"""``state-bundler guard``: checks that git ignores the state directories."""

from __future__ import annotations

import click

from bundler import listener
from bundler.cli.guard_command import FORMATS, GuardArguments, answer
from bundler.guard.verdict import Moment, Movement


@click.command()
@click.option(
    "--staged", "moment", flag_value="staged", help="Check what the next commit will contain."
)
@click.option("--push", "moment", flag_value="push", help="Check the commits being pushed.")
@click.option("--receive", "moment", flag_value="receive", help="Check the commits being received.")
@click.option(
    "--history", "moment", flag_value="history", help="Check everything reachable from any ref."
)
@click.option(
    "--allow",
    multiple=True,
    metavar="PATTERN",
    help="A path that is committed on purpose (repeatable).",
)
@click.option("--strict", is_flag=True, help="Treat warnings as failures.")
@click.option(
    "--fix",
    is_flag=True,
    help="Remove state from the index, add the ignore rule, then check again.",
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--remote", default="", metavar="NAME", help="The remote being pushed to.")
@click.option("-C", "root", default=".", metavar="DIR", help="Run as if started in this directory.")
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
    """Check that no state is in the git repository or can get into it.

    By default, checks the index, HEAD and the ignore rules, as before a build.
    DIR names a state directory in addition to those found by name and configuration.
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
    listener.of_process = listener.SILENT  # it has its own notice
    ctx.exit(answer(request))
