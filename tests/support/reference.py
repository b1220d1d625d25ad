"""Writes the pages of docs/ that are made from the program itself: ``make docs``.

A test holds the pages against what this would write.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ["COLUMNS"] = "80"  # click asks for it while it is imported

import click

from bundler import errors
from bundler.cli.commands import cli
from bundler.cli.help import everything
from bundler.project import settings_docs
from bundler.project.config import json_schema

DOCS = Path(__file__).parents[2] / "docs"
_INTRODUCTION = """\
A Dagster project needs none. Settings stand in `pyproject.toml`; the command line goes before an
environment variable (`STATE_BUNDLER_…`), that before the file. An unknown name is an error that
suggests the nearest one. `validate-pyproject` knows the schema, and editors that use it.
Durations are a number and a unit: `30s`, `5m`, `24h`, `7d`.

The variable of a setting is its name in capitals, with `_` for `-`, such as
`STATE_BUNDLER_TOTAL_TIMEOUT=1h`. It holds for every key, like an option of the command line. A list
is written with commas or as in TOML (`STATE_BUNDLER_EXCLUDE=*.log,tmp`), a command as for a shell,
a table as in TOML (`STATE_BUNDLER_KIND_JOBS='{"*.Vendor" = 2}'`). `allow` of `guard` is
`STATE_BUNDLER_GUARD_ALLOW`. An empty variable counts as unset; an unknown one and a bad value are
errors (78). Besides, there are `STATE_BUNDLER_PYTHON` (the project's interpreter),
`STATE_BUNDLER_DOCKER` (the Docker command), `STATE_BUNDLER_INSECURE_REGISTRIES`,
`STATE_BUNDLER_EMBEDDED` (states at run time), `STATE_BUNDLER_DEVELOPMENT` and
`STATE_BUNDLER_DEMO_BASE`."""
_SEVERAL = """\
A build's own failure passes its code on: what `docker build` or `pex` ended with is what we end
with. Several failures at once are all listed, each with its own code; the exit code is the first
of these that occurred: 128+n · {order}.

Where nobody reads the output any more (`| head -1`) the command ends quietly with 141, which is
128 + SIGPIPE. A closed stderr (`2>&-`) means that nobody wants the narrative, and is no error."""
_MADE = "<!-- Made by `make docs`; a test holds it against the program. -->"


def pages() -> dict[str, str]:
    """Every page by its name."""
    return {
        "reference/commands.md": _joined(_commands()),
        "reference/configuration.md": _joined(_configuration()),
        "reference/exit-codes.md": _joined(_exit_codes()),
    }


def _joined(lines: Iterator[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def commands(
    command: click.Command = cli, name: str = "state-bundler"
) -> Iterator[tuple[str, click.Command]]:
    """Every command with its whole name, groups before what is in them."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, f"{name} {child}")


def help_of(name: str, command: click.Command) -> str:
    """What ``--help`` prints on 80 columns."""
    *groups, own = name.split()
    parent = click.Context(cli, info_name=" ".join(groups)) if groups else None
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 80}
    context = click.Context(command, info_name=own, parent=parent, terminal_width=80, **settings)  # type: ignore[arg-type]  # click's own settings
    return command.get_help(everything(context))


def _commands() -> Iterator[str]:
    yield from ("# Commands", "", _MADE, "")
    yield "Every command accepts `--help`. Data goes to stdout, progress to stderr."
    yield "What an exit code means: [exit codes](exit-codes.md)."
    for name, command in commands():
        yield from ("", f"## {name}", "", "```text", help_of(name, command), "```")


def _configuration() -> Iterator[str]:
    yield from ("# Configuration", "", _MADE, "")
    yield _INTRODUCTION
    tables = json_schema()["$defs"]
    yield from _table("[tool.state-bundler]", tables["_Root"], settings_docs.ROOT)
    yield from _table('[tool.state-bundler.keys."KEY"]', tables["_KeyTable"], settings_docs.KEY)
    yield "A `*` in KEY is a wildcard; brackets are brackets."
    yield from _table("[tool.state-bundler.guard]", tables["_GuardTable"], settings_docs.GUARD)
    yield from _table("[[tool.state-bundler.source]]", tables["_SourceTable"], settings_docs.SOURCE)


def _table(title: str, schema: Mapping[str, Any], told: Mapping[str, str]) -> Iterator[str]:
    yield from ("", f"## {title}", "", "| setting | value | meaning |", "|---|---|---|")
    for name, setting in schema["properties"].items():
        yield f"| `{name}` | {_kind(name, setting)} | {told[name].replace('|', '&#124;')} |"
    yield ""


def _kind(name: str, setting: Mapping[str, Any]) -> str:
    options = [one for one in setting.get("anyOf", [setting]) if one.get("type") != "null"]
    one, *others = options
    if others:
        return ", ".join(_kind(name, option) for option in options)
    if "$ref" in one or name in ("keys", "source"):
        return "table"
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in sorted(one["enum"]))
    if "examples" in one:
        return "duration"
    kinds = {"array": "list", "object": "table", "boolean": "`true`, `false`"}
    kinds |= {"integer": "number", "number": "0 to 1", "string": "text"}
    return kinds[one["type"]]


def _exit_codes() -> Iterator[str]:
    yield from ("# Exit codes", "", _MADE, "")
    yield "The codes follow `sysexits.h` where one fits."
    yield from ("", "| code | what it is called | when |", "|---|---|---|")
    yield "| 0 | | everything asked for was done, and proven |"
    told = {
        errors.UsageError: "The command line makes no sense.",
        errors.Bug: "Our fault; the message names a log to report.",
        errors.InputOutputError: "A file could not be read or written, or stdout not (`>&-`).",
        errors.Locked: "Another run refreshes, publishes or leases the same.",
        errors.CredentialsRefused: "They were refused, or a secret stands in a state.",
        errors.ConfigurationError: "The configuration, or the Dockerfile, makes no sense.",
    }
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    coded = [kind for kind in kinds if "exit_code" in vars(kind)]
    for kind in sorted(coded, key=lambda kind: kind.exit_code):
        when = told.get(kind) or (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        yield f"| {kind.exit_code} | {kind.title} | {when} |"
    yield "| 128+n | interrupted | Signal n ended the run; nothing was published. |"
    yield ""
    yield _SEVERAL.format(order=" · ".join(map(str, errors._PRECEDENCE)))


def main() -> None:
    for name, text in pages().items():
        (DOCS / name).write_text(text)


if __name__ == "__main__":
    main()
