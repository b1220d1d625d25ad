"""Asks the guard for a hook of git: ``python asking.py RESULTS QUESTIONS``.

QUESTIONS is JSON: for each question its name, the folder (None: that of the hook) and the guard's
arguments. Each is asked in a fork, with the environment that git gave the hook. The exit code goes
into the file of its name in RESULTS, and what the guard printed next to it.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from bundler.cli import state_guard

# Imported once, and not in each of the forks.
_NEEDED = ("bundler.cli.guard_command", "git")

Question = tuple[str, Path | None, str]


def command(results: Path, questions: Iterable[Question]) -> str:
    """The line of the hook."""
    asked = [(name, folder and os.fspath(folder), words) for name, folder, words in questions]
    return shlex.join([sys.executable, __file__, os.fspath(results), json.dumps(asked)])


def main() -> None:
    for module in _NEEDED:
        importlib.import_module(module)
    results = Path(sys.argv[1])
    for name, folder, words in json.loads(sys.argv[2]):
        child = os.fork()
        if not child:
            _ask(results / f"{name}.out", folder, words.split())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        (results / name).write_text(f"{code}\n")


def _ask(out: Path, folder: str | None, words: list[str]) -> None:
    for descriptor in (1, 2):
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 99  # none of the guard's: 1 is "state is committed"
    try:
        if folder:
            os.chdir(folder)
        sys.argv = ["state-guard", *words]
        code = state_guard.main()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  # which nothing else would show
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
