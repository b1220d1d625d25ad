"""The command line: thin. One module a command, loaded only when it is asked for.

This package alone prints, colours and exits. Data goes to stdout, the narrative to stderr.
"""

from __future__ import annotations

import gc
import sys

_LOOK_FOR_CYCLES_AFTER = 100_000  # objects more


def main() -> None:
    """The console script: every expected failure ends in a short block on stderr and its code."""
    # A command makes some tens of thousands of objects that stay, a third of them by its imports.
    # To look through them for cycles, over and over and twice more at the end, takes a tenth of a
    # short one's time.
    gc.set_threshold(_LOOK_FOR_CYCLES_AFTER)
    from bundler.cli.commands import cli
    from bundler.cli.run import run

    code = run(cli, sys.argv[1:])
    gc.freeze()
    sys.exit(code)
