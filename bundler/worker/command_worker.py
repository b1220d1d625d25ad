"""Commands that write a state: the worker's child becomes that program."""

from __future__ import annotations

import os

# The imports that are missing here would take longer than everything else.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
        raise ProgramNotStartedError(f"{argv[0]}: {why}") from None


def _kind(argv: list[str]) -> str:
    """``command``, or ``command:dbt``, which needs some extra treatment."""
    return "command:dbt" if any(os.path.basename(part) == "dbt" for part in argv) else "command"


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
