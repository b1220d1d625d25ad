"""``state-bundler`` and its commands, each loaded only when it is asked for."""

from __future__ import annotations

from importlib import import_module

import click

from bundler.version import __version__

# What --help says of each command. A command is what its module calls by the same name.
_COMMANDS = {
    "init": "Configure a project: show the fewest changes, ask, write.",
    "doctor": "Find what would make a build fail, or silently lose state.",
    "status": "Show every key of a project or an artifact: age, size, digest.",
    "refresh": "Refresh the state of every component: all of them, or nothing.",
    "guard": "Ask git whether state is in the repository, or could slip in.",
    "build": "Build an image, a PEX or a wheel with its state, or none at all.",
    "embed": "Put the state on images that any builder made.",
    "update": "Put new state into a finished artifact, without a build.",
    "verify": "Check that an artifact holds what its manifest says.",
    "predicate": "Print what an artifact holds, to attest it with.",
    "sign": "Verify an artifact, and sign it with an SSH key.",
    "diff": "Show what changed between two artifacts' states.",
    "extract": "Take the states out of an artifact.",
    "store": "Keep every version of every state in a bucket or a folder.",
    "demo": "Show the whole of it on a sample project: no account, no engine.",
}


class _LazyGroup(click.Group):
    """Lists its commands without importing them, so that start-up stays short."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"bundler.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="state-bundler")
def cli() -> None:
    """Bake the state of external systems into what you ship, and prove that it is there."""
