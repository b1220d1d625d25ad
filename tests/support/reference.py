"""Writes the pages of docs/ that are made from the program itself: ``make docs``.

A test compares the pages with what this would write.
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
A Dagster project needs no configuration. Settings go into `pyproject.toml`. A command-line option
overrides an environment variable (`STATE_BUNDLER_…`), which overrides the file. An unknown name
is an error that suggests the nearest one. `validate-pyproject` checks the table if state-bundler
is installed next to it.

Durations are a number and a unit: `30s`, `5m`, `24h`, `7d`.

## Environment variables

The variable of a setting is its name in capitals, with `_` for `-`, such as
`STATE_BUNDLER_TOTAL_TIMEOUT=1h`. It applies to every key, like an option on the command line.

| value | written | example |
|---|---|---|
| list | with commas, or as in TOML | `STATE_BUNDLER_EXCLUDE=*.log,tmp` |
| command (`validate`, `reach`) | as in a shell, or in TOML | `STATE_BUNDLER_REACH='./ping -q'` |
| table | as in TOML | `STATE_BUNDLER_KIND_JOBS='{"*.Vendor" = 2}'` |
| `allow` of the table `guard` | as a list | `STATE_BUNDLER_GUARD_ALLOW=tests/fixtures` |

An empty variable counts as unset. An unknown variable or an invalid value is an error (78). These
variables have no setting:

| variable | meaning |
|---|---|
| `STATE_BUNDLER_PYTHON` | the project's interpreter, like `--python` |
| `STATE_BUNDLER_NO_CACHE` | `1` loads the components at every command, like `--no-cache` |
| `STATE_BUNDLER_DOCKER` | the docker command, with global options |
| `STATE_BUNDLER_INSECURE_REGISTRIES` | hosts of registries that use plain HTTP |
| `STATE_BUNDLER_EMBEDDED` | where a program finds its embedded states at run time |
| `STATE_BUNDLER_DEVELOPMENT` | `1` lets a program without Dagster fetch its state when it loads |
| `STATE_BUNDLER_DEMO_BASE` | the base image of `state-bundler demo` |"""
_SEVERAL = """\
If `docker build` or `pex` fails, state-bundler exits with its exit code.

If there are several failures, all of them are listed, each with its own code. The exit code is
the first of these that occurred: 128+n · {order}.

If nothing reads the output any more (`| head -1`), the command exits quietly with 141, which is
128 + SIGPIPE. A closed stderr (`2>&-`) is not an error."""
_MADE = "<!-- Written by `make docs`; a test compares it with the program. -->"


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
    yield "These are the help texts of all commands, with all options. Data goes to stdout,"
    yield "progress to stderr. [Exit codes](exit-codes.md) are on a separate page."
    for name, command in commands():
        yield from ("", f"## {name}", "", "```text", help_of(name, command), "```")


def _configuration() -> Iterator[str]:
    yield from ("# Configuration", "", _MADE, "")
    yield _INTRODUCTION
    tables = json_schema()["$defs"]
    yield from _table("[tool.state-bundler]", tables["_Root"], settings_docs.ROOT)
    yield from _table('[tool.state-bundler.keys."KEY"]', tables["_KeyTable"], settings_docs.KEY)
    yield "In KEY, `*` is a wildcard. Brackets have no special meaning."
    yield from _table("[tool.state-bundler.guard]", tables["_GuardTable"], settings_docs.GUARD)
    yield from _table("[[tool.state-bundler.source]]", tables["_SourceTable"], settings_docs.SOURCE)


def _table(title: str, schema: Mapping[str, Any], reported: Mapping[str, str]) -> Iterator[str]:
    yield from ("", f"## {title}", "", "| setting | value | meaning |", "|---|---|---|")
    for name, setting in schema["properties"].items():
        yield f"| `{name}` | {_kind(name, setting)} | {reported[name].replace('|', '&#124;')} |"
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
    yield "The codes follow `sysexits.h` where it has a suitable one."
    yield from ("", "| code | name | meaning |", "|---|---|---|")
    yield "| 0 | | The command succeeded, and the result was verified. |"
    reported = {
        errors.UsageError: "Invalid command line.",
        errors.Bug: "A bug in state-bundler. The message names a log to report.",
        errors.InputOutputError: "A file or stdout could not be read or written.",
        errors.Locked: "Another run is refreshing, publishing or leasing the same states.",
        errors.CredentialsRefused: "A system refused them, or a state contains a secret.",
        errors.ConfigurationError: "The configuration or the Dockerfile is invalid.",
    }
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    coded = [kind for kind in kinds if "exit_code" in vars(kind)]
    for kind in sorted(coded, key=lambda kind: kind.exit_code):
        when = reported.get(kind) or (inspect.getdoc(kind) or "").split("\n\n")[0].replace(
            "\n", " "
        )
        yield f"| {kind.exit_code} | {kind.title} | {when} |"
    yield "| 128+n | interrupted | Signal n ended the run. |"
    yield ""
    yield _SEVERAL.format(order=" · ".join(map(str, errors._PRECEDENCE)))


def main() -> None:
    for name, text in pages().items():
        (DOCS / name).write_text(text)


if __name__ == "__main__":
    main()
