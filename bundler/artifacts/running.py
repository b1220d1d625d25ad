"""Running Python inside an artifact: what the kinds that can be run have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from bundler.errors import ToolFailed
from bundler.system import process
from bundler.system.process import Completed

TIMEOUT_SECONDS = 300.0
# Exit codes of docker and of shells: nothing ran.
NOT_STARTED = (125, 126, 127)
# Runs a Python program, given on stdin, inside an artifact: (arguments, program, environment).
Runner = Callable[[Sequence[str], bytes, Mapping[str, str]], Completed]


def bare_environment(home: str, given: Mapping[str, str]) -> dict[str, str]:
    """What a program sees that runs on this machine but must not see this machine's settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH") or name.startswith("LC_")
    }
    return {**kept, "HOME": home, "DAGSTER_DISABLE_TELEMETRY": "true", **given}


@cache
def without_network() -> tuple[str, ...]:
    """The command that starts a program without network; empty if this machine forbids that."""
    for command in (("unshare", "--net"), ("unshare", "--map-root-user", "--net")):
        try:
            if process.run([*command, "true"], timeout=10).exit_code == 0:
                return command
        except ToolFailed:
            return ()
    return ()
