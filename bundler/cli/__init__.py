"""The command line: a thin layer with one module per command, loaded on demand.

Only this package prints, colours and exits. Data goes to stdout, progress to stderr.
"""

from __future__ import annotations

import gc
import sys

_LOOK_FOR_CYCLES_AFTER = 100_000  # objects more


def main() -> None:
    """The console script: prints each expected failure on stderr and returns its exit code."""
    # A command creates tens of thousands of long-lived objects, a third of them during imports.
    # Scanning them for reference cycles repeatedly, and twice more at exit, takes a tenth of the
    # time of a short command.
    gc.set_threshold(_LOOK_FOR_CYCLES_AFTER)
    from bundler.cli.commands import cli
    from bundler.cli.run import run

    code = run(cli, sys.argv[1:])
    gc.freeze()
    sys.exit(code)
