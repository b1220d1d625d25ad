"""``pex-bundle``: pex with pex's own arguments; ours begin with ``--bundle-``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from bundler.artifacts.image.engine.arguments import split_own
from bundler.artifacts.python.pex.arguments import parse
from bundler.artifacts.python.pex.building import find_pex
from bundler.cli.build import build_pex
from bundler.cli.build_docker import takes_value
from bundler.cli.help import Renamed, called, everything
from bundler.cli.options import narrator
from bundler.cli.run import run
from bundler.project.projects import find_interpreter
from bundler.system import process

_PREFIX = "--bundle-"
_ABOUT = """
Embeds the state of your state-backed components in the PEX: checks that git ignores the state,
refreshes it, runs pex with your arguments, adds the state to the result and reads it back.
All other options are passed to pex; `pex --help` lists them.
"""


def main(arguments: Sequence[str]) -> int:
    """The console script. Returns the exit code: ours, or pex's own where pex fails."""

    @click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("ignored", nargs=-1, type=click.UNPROCESSED)
    def pex_bundle(ignored: tuple[str, ...]) -> int:
        return _pex_bundle(ignored)

    Renamed.option = _PREFIX
    Renamed.ours = frozenset(takes_value(build_pex)) - {"--help", "--help-all", "--output"}
    # click would consume the user's `--`, so another one is added in front.
    return run(pex_bundle, ["--", *arguments])


def _pex_bundle(arguments: Sequence[str]) -> int:
    ours, theirs = _split(arguments)
    parsed = parse(theirs)
    if parsed.only_asks or parsed.output is None:
        return _pass_on(parsed.only_asks, ours, theirs)
    code = build_pex.main(
        [*ours, "--output", parsed.output, "--", *parsed.rest],
        prog_name="pex-bundle",
        standalone_mode=False,
    )
    return code if isinstance(code, int) else 0


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our arguments, as ``build pex`` names them, and pex's, which include all after ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own = takes_value(build_pex)
    ours, theirs = split_own(arguments[:end], own, _PREFIX, program="pex-bundle")
    return ours, [*theirs, *arguments[end:]]


def _pass_on(only_asks: bool, ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Runs pex unchanged: the user asks for its help or runs a program without building a PEX."""
    if "--help" in theirs or "-h" in theirs:
        click.echo(_help())
        return 0
    listener = narrator()
    if not only_asks:
        listener.warning(
            "Without -o, pex creates no file but runs the program. No state is refreshed or "
            "embedded; the program uses what is on disk."
        )
    here = Path.cwd()
    pex = find_pex(find_interpreter(here, here).path, _named_pex(ours))
    return process.pass_through([pex, *theirs])


def _named_pex(arguments: Sequence[str]) -> str | None:
    """The pex that our own arguments name."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name == "--pex":
            return value if equals else following
    return None


def _help() -> str:
    context = everything(click.Context(build_pex, info_name="pex-bundle"))
    formatter = context.make_formatter()
    formatter.write_text(_ABOUT)
    records = (option.get_help_record(context) for option in build_pex.params if _is_ours(option))
    with formatter.section("Options of pex-bundle"):
        formatter.write_dl([called(record) for record in records if record])
    return formatter.getvalue()


def _is_ours(option: click.Parameter) -> bool:
    return isinstance(option, click.Option) and option.name not in ("output", "help")
