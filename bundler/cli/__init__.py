"""The command line: thin. One module a command, loaded only when it is asked for.

This package alone prints, colours and exits. Data goes to stdout, the narrative to stderr.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module

import click

from bundler import __version__

# name -> module and attribute of its click command, in the order in which --help shows them
_COMMANDS = {
    "init": "bundler.cli.init:init",
    "doctor": "bundler.cli.doctor:doctor",
    "status": "bundler.cli.status:status",
    "refresh": "bundler.cli.refresh:refresh",
    "guard": "bundler.cli.guard:guard",
    "build": "bundler.cli.build:build",
    "embed": "bundler.cli.embed:embed",
    "update": "bundler.cli.update:update",
    "verify": "bundler.cli.verify:verify",
    "predicate": "bundler.cli.predicate:predicate",
    "sign": "bundler.cli.sign:sign",
    "diff": "bundler.cli.diff:diff",
    "extract": "bundler.cli.extract:extract",
    "store": "bundler.cli.store:store",
    "demo": "bundler.cli.demo:demo",
}


class _LazyGroup(click.Group):
    """Lists its commands without importing them, so that start-up stays short."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="state-bundler")
def cli() -> None:
    """Bake the state of external systems into what you ship, and prove that it is there."""


def main() -> None:
    """The console script: every expected failure ends in a short block on stderr and its code."""
    from bundler.cli.run import run

    code = run(cli, sys.argv[1:])
    # Else the interpreter looks through all objects for cycles twice before it ends: a tenth of
    # what a short command takes.
    gc.freeze()
    sys.exit(code)
