"""The console script ``state-guard``, which runs at every commit.

Only imports what the fast path needs.
"""

from __future__ import annotations


def main() -> int:
    import sys

    arguments = sys.argv[1:]
    compare = None
    if arguments[:1] == ["--staged"] and not any(word.startswith("-") for word in arguments[1:]):
        from bundler.guard.quick import quick_check

        compare = quick_check(arguments[1:])
        if compare == ():
            return 0
    from bundler.cli.guard_command import run

    return run(arguments, compare)
