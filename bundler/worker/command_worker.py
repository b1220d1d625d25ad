"""Commands that write a state: the worker's child becomes that program."""

from __future__ import annotations

import os
import re

# The imports that are missing here would take longer than everything else.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_SHELLS = ("sh", "bash", "dash", "ksh", "zsh", "ash")
_HAS_SCRIPT = re.compile(r"-[a-zA-Z]*c[a-zA-Z]*$")
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*"|(?:^|(?<=\s))#[^\n]*""", re.DOTALL)
_DOCUMENT = re.compile(r"""(<<-?\s*(['"]?)(\w+)\2[^\n]*)\n(?:.*?\n)??\s*\3(?=\n|\Z)""", re.DOTALL)
# What ends a program whose failure the next one hides. Before some words it only ends a condition
# or a branch, and a line may go on after an operator.
_PIPE = re.compile(r"(?<![|>])\|(?!\|)")
_NEXT = re.compile(r"(?<!&&)(?<!\|)[;\n](?!\s*(?:then|elif|else|fi)\b)")
# Nothing that can fail.
_SET_UP = re.compile(r"\A(?:\s*(?:set|shopt|export|unset|umask|trap)\b[^;\n|&(`]*[;\n])+")
_OR_EXIT = re.compile(r"\|\|\s*exit\b[^;\n]*[;\n]")
_ERREXIT = re.compile(r"\bset\s(?:[^;\n]*\s)?(?:-[a-zA-Z]*e|-o\s+errexit)")


class ProgramNotStartedError(Exception):
    """Says which program, and why."""


def write(argv: list[str], state_path: str, previous_path: str = "") -> None:
    """Becomes the program. Raises `ProgramNotStartedError` if it cannot be started.

    argv: with ``{state_path}`` where the path of the state belongs, and ``{previous_path}`` where
    that of the copy of the last good one does.
    """
    argv = [
        part.replace("{state_path}", state_path).replace("{previous_path}", previous_path)
        for part in argv
    ]
    try:
        os.execvp(argv[0], argv)  # noqa: S606  # an argv list from the configuration, no shell
    except (OSError, ValueError) as error:  # a word or a variable may contain a NUL
        why = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, FileNotFoundError) and "/" in argv[0] and os.path.isfile(argv[0]):
            why = "the interpreter in its first line does not exist"
        raise ProgramNotStartedError(f"{argv[0]}: {why}") from None


def _kind(argv: list[str]) -> str:
    """``command``, or ``command:dbt``, which needs some extra treatment."""
    return "command:dbt" if any(os.path.basename(part) == "dbt" for part in argv) else "command"


def _warning(key: str, argv: list[str]) -> str:
    """What a shell does to the exit code, which decides whether the state is good."""
    shell = os.path.basename(argv[0])
    if shell not in _SHELLS:
        return ""
    at = next((n for n, word in enumerate(argv) if _HAS_SCRIPT.match(word)), len(argv))
    script = "".join(argv[at + 1 : at + 2])
    plain = _QUOTED.sub("", _DOCUMENT.sub(r"\1", script)).strip(" \t\r\n;")
    plain = _OR_EXIT.sub("&& ", _SET_UP.sub("", re.sub(r"\s*\n\s*", "\n", plain)))
    options = " ".join(argv[1 : at + 1])
    ends_early = _ERREXIT.search(f"set {options}") or _ERREXIT.search(script)
    ignored = (_PIPE.search(plain) and "pipefail" not in f"{options} {script}") or (
        _NEXT.search(plain) and not ends_early
    )
    if not ignored:
        return ""
    return (
        f"{key}: {shell} ignores a failure of every program but the last. Use bash, and begin the "
        "script with `set -eo pipefail;`."
    )


def load(command: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """One component per command; there is nothing to import."""
    os.chdir(command["root"])
    told = [
        {
            "key": entry["key"],
            "management_type": "LOCAL_FILESYSTEM",
            "refresh_if_dev": True,
            "kind": _kind(entry["argv"]),
            "location": entry["argv"][0],
            "warning": _warning(entry["key"], entry["argv"]),
            "made_of": repr([command["root"], entry["argv"]]),
        }
        for entry in command["entries"]
    ]
    return {
        "components": told,
        "directory": command["directory"],
        "place": command["place"],
        "version": "",
        "warnings": [],
    }, {entry["key"]: entry["argv"] for entry in command["entries"]}
