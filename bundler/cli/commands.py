"""``state-bundler`` and its commands, loaded on demand."""

from __future__ import annotations

from importlib import import_module

import click

from bundler.version import __version__

# The summary of each command. A command has the same name as its module.
_COMMANDS = {
    "init": "Configure a project: show the changes, ask, write.",
    "doctor": "Find what would make a build fail or silently lose state.",
    "status": "Show the keys of a project or artifact: age, size, digest.",
    "plan": "Show what a refresh would change, in states and definitions.",
    "refresh": "Refresh the state of every component, all or nothing.",
    "guard": "Check that no state is in the git repository or can get into it.",
    "build": "Build an image, PEX or wheel with its state embedded.",
    "embed": "Add the state to images built by any tool.",
    "update": "Replace the state in a finished artifact without a build.",
    "verify": "Verify an artifact against its manifest and a policy.",
    "predicate": "Print an attestation predicate for an artifact.",
    "sign": "Verify an artifact and sign it with an SSH key.",
    "diff": "Show what changed between the states of two artifacts.",
    "extract": "Extract the states from an artifact.",
    "store": "Store every version of every state in a bucket or folder.",
    "completion": "Print the completion script of a shell.",
    "demo": "Run every step on a sample project; needs no account.",
}


class _LazyGroup(click.Group):
    """Lists its commands without importing them, to keep start-up fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"bundler.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from bundler.system.wording import nearest

            near = nearest(args[0], _COMMANDS)
            suggestion = f" Did you mean {near!r}?" if near else ""
            ctx.fail(f"Unknown command {args[0]!r}.{suggestion}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="state-bundler")
def cli() -> None:
    """Embed your code location's state in the image or PEX you ship, and verify it."""
