"""Writes the output of the keys that failed to a file: the terminal only shows its last lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from bundler.system import home
from bundler.system.atomic import save

_ONLY_OWNER = 0o600


def write_failure_log(project: str, outputs: Mapping[str, Sequence[str]]) -> str:
    """Writes the log and returns its path; empty if there is no output, or it cannot be written.

    The project's next failure replaces it. outputs: lines without secrets, by key.
    """
    parts = ["".join(f"{it}\n" for it in (f"== {key}", *lines)) for key, lines in outputs.items()]
    folder = home.logs() if any(outputs.values()) else None
    if folder is not None:
        path = folder / f"refresh-{re.sub(r'[^A-Za-z0-9._-]', '_', project)}.log"
        with suppress(OSError):
            save(path, "\n".join(parts).encode(), _ONLY_OWNER)
            return str(path)
    return ""
