"""The log of a bug, to paste into a report: versions, the command, the traceback, and no secret.

Values may be credentials: of the command line there are only names, and of the exceptions only
their types.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

import click

from bundler.errors import BundlerError
from bundler.system.process import run
from bundler.version import __version__

_TIMEOUT_SECONDS = 5.0
_OPTION = re.compile(r"--[a-z][a-z-]+(?==|$)|-[a-zA-Z]")


def write_crash_log(error: BaseException, command: click.Command, words: Sequence[str]) -> str:
    """Writes the log and returns its path. Raises `OSError`."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix="state-bundler-", suffix=".log", delete=False
    ) as log:
        program = os.path.basename(sys.argv[0])
        log.writelines(f"{line}\n" for line in _versions())
        log.write(f"command: {program} {_names(command, words)}\n\n")
        log.writelines(_traceback(error))
    return log.name


def _versions() -> Iterator[str]:
    yield f"state-bundler: {__version__}"
    yield f"Python: {platform.python_version()} ({platform.python_implementation()})"
    yield f"platform: {platform.platform()}"
    yield f"pex: {_package('pex')}"
    for program in ("git", "docker"):
        yield f"{program}: {_answer(program)}"


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed next to state-bundler"


def _answer(program: str) -> str:
    try:
        done = run([program, "--version"], timeout=_TIMEOUT_SECONDS)
    except BundlerError:
        return "did not answer"
    found = re.search(rb"\d+\.\d+[\w.+~-]*", done.stdout)
    return found[0].decode() if found else "did not say"


def _names(command: click.Command, words: Sequence[str]) -> str:
    """The command line without values, which may be credentials."""
    context = click.Context(command)
    shown = []
    for word in words:
        child = command.get_command(context, word) if isinstance(command, click.Group) else None
        option = _OPTION.match(word)
        if child is not None:
            shown.append(word)
            command = child
        else:
            shown.append(option[0] if option else "…")
    return " ".join(shown)


def _traceback(error: BaseException) -> Iterator[str]:
    """From the first cause to the last: where, and of which type."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _traceback(cause)
        yield "\nthen\n\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__module__}.{type(error).__qualname__}\n"
