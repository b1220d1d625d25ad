"""``.env`` files, as the python-dotenv in the project's own environment reads them.

Its versions differ in comments, quotes and escapes, and Dagster uses the one that is installed with
it. A project without Dagster, and so without python-dotenv, gets the one that we bring.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bundler import listener
from bundler.errors import ConfigurationError, ToolFailed
from bundler.system import process
from bundler.system.atomic import io_errors

_SCRIPT = """\
import json, logging, os, sys
sys.path[:] = [path for path in sys.path if path]
try:
    from dotenv import dotenv_values
except ImportError:
    sys.exit(1)
else:
    ignored = []
    handler = logging.Handler()
    handler.emit = lambda it: ignored.extend(n for n in it.args if isinstance(n, int))
    logging.getLogger("dotenv").addHandler(handler)
    try:
        found = dotenv_values(sys.argv[1]).items()
        values = {name: value for name, value in found if value is not None}
        os.environ.update(values)
        told = {"values": values, "ignored": ignored}
    except UnicodeDecodeError:
        told = {"error": "it is not UTF-8"}
    except OSError as error:
        told = {"errno": error.errno}
    except ValueError:
        told = {"error": "it holds a NUL byte"}
print("\\n" + json.dumps(told))
"""
_SECONDS = 5.0


def read(path: Path, environment: Mapping[str, str], python: Path | None = None) -> dict[str, str]:
    """The variables that a file sets; empty if it does not exist.

    environment: for references that the file itself does not define. python: the project's
    interpreter. Raises `ConfigurationError` if the file is malformed, `InputOutputError` if it
    cannot be read.
    """
    with io_errors(path):
        if not path.exists() or path.is_dir():  # a virtual environment has this name, too
            return {}
    began = time.monotonic()
    said = _ask([python], path, environment) if python is not None else None
    if said is None and time.monotonic() - began < _SECONDS:
        said = _ask([Path(sys.executable), "-I"], path, environment)
    if said is None:
        raise ConfigurationError(
            f"Reading {path} took longer than {_SECONDS:g} s.",
            hint="If it is a FIFO, start the program that writes to it.",
        )
    if "errno" in said:
        with io_errors(path):
            raise OSError(said["errno"], os.strerror(said["errno"]))
    if "error" in said:
        raise ConfigurationError(f"{path} cannot be read: {said['error']}.")
    for line in said["ignored"]:
        _warn(path, line)
    if any(name.startswith("\ufeff") for name in said["values"]):
        _warn_of_mark(path)
    return dict(said["values"])


@cache  # each command reads the file several times
def _warn(path: Path, line: int) -> None:
    with io_errors(path):  # python-dotenv counts from the empty lines before
        lines = path.read_bytes().splitlines() if path.is_file() else []
    line += next((n for n, text in enumerate(lines[line - 1 :]) if text.strip()), 0)
    listener.of_process.warning(
        f"{path}:{line} is not NAME=VALUE and is ignored. Is a quotation mark missing?"
    )


@cache
def _warn_of_mark(path: Path) -> None:
    listener.of_process.warning(
        f"{path} begins with a byte order mark, so its first variable is not set. Save it as UTF-8 "
        "without one."
    )


def _ask(
    python: Sequence[Path | str], path: Path, environment: Mapping[str, str]
) -> dict[str, Any] | None:
    """The variables in the file; None if this interpreter has no python-dotenv, or cannot be
    asked."""
    # The variables for our own interpreter are not the project's.
    env = {name: value for name, value in environment.items() if name != "PYTHONHOME"}
    try:
        done = process.run([*python, "-c", _SCRIPT, path], env=env, timeout=_SECONDS)
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ToolFailed, ValueError, IndexError):
        return None
    return said
