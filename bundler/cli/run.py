"""Runs a command and returns its exit code, with one handler for all errors.

An expected failure is printed on stderr: its kind, what happened, what to do. A bug writes its
traceback to a file and prints the path.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from itertools import zip_longest
from types import FrameType

import click

from bundler import listener
from bundler.cli.console import Console
from bundler.cli.help import Renamed, as_typed, message_as_typed
from bundler.cli.progress import ConsoleListener
from bundler.errors import Bug, BundlerError, Interrupted, Several, UsageError, signal_of
from bundler.system import streams


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code. Catches every exception."""
    signal.signal(signal.SIGTERM, _terminate)
    before = listener.of_process
    try:
        return streams.ending(lambda: _run(command, arguments), report)
    finally:
        listener.of_process = before


def _run(command: click.Command, arguments: Sequence[str]) -> int:
    listener.of_process = ConsoleListener(Console(sys.stderr))
    try:
        code = command.main(list(arguments), standalone_mode=False)
    except click.ClickException as error:
        _show(error)
        _tell_parent([UsageError(error.format_message())])
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return report(Interrupted(signal.SIGINT))
    except streams.StreamFailed:
        raise
    except SystemExit as error:
        return _exit_code(error)
    except BundlerError as error:
        return report(error)
    except Exception as error:  # a bug is reported, not shown as a traceback
        if streams.is_ours(error):
            raise
        return report(_bug(error, command, arguments))
    return code if isinstance(code, int) else 0


# What other commands, and git, call an option.
_OTHER_NAMES = {"--refresh": "--when", "--when": "--refresh", "-C": "--project"}


def _tell_parent(failures: Sequence[BundlerError]) -> None:
    """Reports to the process that builds all projects, if that started this one."""
    if os.environ.get("STATE_BUNDLER_ONE_OF_ALL"):
        from bundler.workflows.build_all import failed, report_result

        report_result(failed(failures))


def _show(error: click.ClickException) -> None:
    if isinstance(error, click.NoSuchOption):  # as all our programs call it
        says = f"Unknown option {error.option_name!r}."
        if name := _name_here(error):
            error = click.UsageError(f"{says} Did you mean {name!r}?", error.ctx)
        else:
            error = click.NoSuchOption(error.option_name, says, error.possibilities, error.ctx)
    if not Renamed.option:
        error.show(sys.stderr)
        return
    Console(sys.stderr).line(as_typed(f"Error: {error.format_message()}"))


def _name_here(error: click.NoSuchOption) -> str | None:
    """This command's option for what another command, or git, calls by the unknown name."""
    params = error.ctx.command.params if error.ctx is not None else []
    name = _OTHER_NAMES.get(error.option_name)
    return name if any(name in param.opts for param in params) else None


def _terminate(number: int, _: FrameType | None) -> None:
    """Turns SIGTERM into ``SystemExit``, so that everything is cleaned up."""
    raise SystemExit(128 + number)


def _exit_code(error: SystemExit) -> int:
    if number := signal_of(error):
        return report(Interrupted(number))
    return error.code if isinstance(error.code, int) else 1


def report(error: BundlerError) -> int:
    """Prints a failure, also for the CI system, and returns its exit code."""
    from bundler.cli import ci

    console = Console(sys.stderr)
    failures = error.failures if isinstance(error, Several) else (error,)
    for failure in failures:
        if failure.hint[:1].isupper() or failure.hint[:1].isdigit():  # else it is a command
            failure.hint = message_as_typed(failure.hint)
    for failure, following in zip_longest(failures, failures[1:]):
        # The same advice for several, such as the files of one state, is printed after the last.
        is_repeated = following is not None and (failure.why, failure.hint) == (
            following.why,
            following.hint,
        )
        console.failure(failure, advises=not is_repeated)
        for line in ci.annotate(ci.system(), failure):
            console.command(line)
    _tell_parent(failures)
    if error.conclusion:
        console.paragraph(f"{error.conclusion} Exit code {error.exit_code}.")
        if error.log:
            console.line(f"Log: {error.log}")
    elif len(failures) > 1:
        console.line(f"{len(failures)} failures; exit code {error.exit_code}.")
    ci.summarise([*ci.failure_summary(failures), *ci.keys_summary(ci.finished())])
    return error.exit_code


def _bug(error: Exception, command: click.Command, arguments: Sequence[str]) -> Bug:
    from bundler.cli.crash_log import write_crash_log

    what = f"An unexpected {type(error).__name__} occurred."
    try:
        log = write_crash_log(error, command, arguments)
    except OSError:
        return Bug(what, hint="Please report it. No log could be written.")
    return Bug(what, hint=f"Please report it with {log}.")
