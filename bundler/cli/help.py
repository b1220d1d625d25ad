"""Help with the options in groups, as they must be typed; ``--help-all`` adds the rare ones."""

from __future__ import annotations

import re
from typing import Any

import click

_ALL = "bundler.help.all"
# The options of several commands, by their parameter's name; others come first, without a group.
_GROUPS = {
    "What to refresh": [
        "directories",
        "everything",
        "python",
        "mode",
        "keys",
        "state_from",
        "plan",
        "defer_from",
        "baseline",
        "allow_stale",
        "image",
    ],
    "What to check": [
        "allow_empty",
        "allow_shrink",
        "allow_removed",
        "allow_http",
        "load_check",
        "min_definitions",
        "every_byte",
        "no_guard",
    ],
    "Dagster": ["management_types", "pin_versioned", "embed_versioned", "load_module"],
    "Limits": ["timeout", "total_timeout", "attempts", "jobs"],
    "Run in an image": ["in_network", "in_python"],
    "Output": ["environment", "quiet", "style", "output", "report"],
}
_RARE = {
    *("allow_http", "management_types", "pin_versioned", "embed_versioned", "load_module"),
    *("min_definitions", "timeout", "total_timeout", "attempts", "jobs", "environment"),
    *("in_network", "in_python"),
}


class Renamed:
    """How our commands are called by another program: ``docker bundle``, ``pex-bundle``.

    option: the prefix of our options there. ours: these, as ``--name``. theirs: whose the other
    options are, by command.
    """

    option = ""
    ours: frozenset[str] = frozenset()
    commands: dict[str, str] = {}  # noqa: RUF012  # one program a process, set once
    theirs: dict[str, str] = {}  # noqa: RUF012


def renamed(names: str) -> str:
    """An option's names, as they must be typed for the program that calls us."""
    if not Renamed.option:
        return names
    long = [part for part in names.replace(" / ", ", ").split(", ") if part.startswith("--")]
    return " / ".join(Renamed.option + part[2:] for part in long)


def called(record: tuple[str, str]) -> tuple[str, str]:
    """An option's names and help, in which our options have the names they have there."""
    names, text = record
    return renamed(names), as_typed(text)


def as_typed(text: str) -> str:
    """Help in which our options have the names they have for the program that calls us.

    A command in backquotes is another one's, and stays as it is.
    """
    if not Renamed.option:
        return text
    parts = text.split("`")
    parts[::2] = [re.sub(r"(?<![\w-])--(?=[a-z])", Renamed.option, part) for part in parts[::2]]
    return "`".join(parts)


def message_as_typed(text: str) -> str:
    """A message in which our options have the names they have for the program that calls us.

    A command in it, of ours or of another program, stays as it is, and so do other options.
    """
    if not Renamed.option:
        return text
    sentence, ours, command = text.partition("state-bundler ")
    known = "|".join(sorted((name[2:] for name in Renamed.ours), key=len, reverse=True))
    shown = re.sub(rf"(?<![\w`-])--(?=(?:{known})\b)(?![^`]*`[^`]*$)", Renamed.option, sentence)
    return shown + ours + command


class Grouped(click.Command):
    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), _help_all()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in _GROUPS}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            name = option.name or ""
            if not isinstance(option, click.Option) or record is None:
                continue
            if name in _RARE and not ctx.meta.get(_ALL):
                continue
            title = next((title for title, names in _GROUPS.items() if name in names), None)
            rows = own if title is None else sections[title]
            rows.append(record if "--help" in record[0] else called(record))
        for title, rows in {"Options": own, **sections}.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        if theirs := Renamed.theirs.get(self.name or ""):
            formatter.write_paragraph()
            formatter.write_text(f"All other options are passed on: see `{theirs} --help`.")

    def get_help(self, ctx: click.Context) -> str:
        text = super().get_help(ctx)
        if called := Renamed.commands.get(self.name or ""):
            text = text.replace(ctx.command_path, called)
            text = text.replace(f"state-bundler build {self.name}", called)
        return text


def everything(ctx: click.Context) -> click.Context:
    """The context, in which help lists the rare options, too."""
    ctx.meta[_ALL] = True
    return ctx


def _help_all() -> click.Option:
    def show(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(everything(ctx).command.get_help(ctx), color=ctx.color)
            ctx.exit()

    return click.Option(
        ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=show,
        help="Show all options and exit.",
    )  # fmt: skip
