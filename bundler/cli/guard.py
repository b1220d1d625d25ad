"""``state-bundler guard``: checks that git ignores the state directories."""

from __future__ import annotations

from typing import Any

import click

from bundler import listener
from bundler.cli.guard_command import FORMATS, OPTIONS, GuardArguments, answer

_SETTINGS: dict[str, dict[str, Any]] = {
    "allow": {"multiple": True},
    "format": {"type": click.Choice(FORMATS), "show_default": True, "metavar": None, "help": None},
    "strict": {"is_flag": True},
    "fix": {"is_flag": True},
}


def _with_options(command: Any) -> Any:
    """Adds the options of ``state-guard``."""
    for name, (takes, field, says) in reversed(OPTIONS.items()):
        settings = {"help": f"{says[0].upper()}{says[1:]}.", "metavar": takes or None}
        if field == "moment":
            settings["flag_value"] = name[2:]
        else:
            settings["default"] = getattr(GuardArguments(), field)
        command = click.option(name, field, **{**settings, **_SETTINGS.get(field, {})})(command)
    return command


@click.command()
@_with_options
@click.argument("directories", nargs=-1, metavar="[DIR]...")
@click.pass_context
def guard(ctx: click.Context, /, **given: Any) -> None:
    """Check that no state is in the git repository or can get into it.

    By default, checks the index, HEAD and the ignore rules, as before a build.
    DIR names a state directory in addition to those found by name and configuration.
    """
    given["moment"] = given["moment"] or GuardArguments().moment
    listener.of_process = listener.SILENT  # it has its own notice
    ctx.exit(answer(GuardArguments(**given)))
