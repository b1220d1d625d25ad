"""The guard: no state ever enters the repository.

It answers at four moments: ``staged`` (what the commit being made will contain), ``build`` (the
index, HEAD and the ignore rules), ``push`` and ``receive`` (the commits that are pushed, seen from
the one end and the other) and ``history`` (everything that any ref reaches). A finding fails or
warns; where git cannot answer the guard does not, either: `ToolFailed`, never "clean".

`main` is the console script ``state-guard``, which runs at every commit: nothing is imported here
that the quick way does not need.
"""

from __future__ import annotations

# `typing` costs as much as git's answer: at run time these names are not needed.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from bundler.guard.verdict import Finding, Moment, Movement, Verdict

__all__ = ["Finding", "Moment", "Movement", "Verdict", "check", "main"]


def __getattr__(name: str) -> object:
    """The types of a verdict, for those who want to name them."""
    if name in ("Finding", "Moment", "Movement", "Verdict"):
        from bundler.guard import verdict

        return getattr(verdict, name)
    raise AttributeError(name)


def check(
    root: str | os.PathLike[str],
    moment: Moment = "build",
    directories: Sequence[str | os.PathLike[str]] = (),
    allow: Sequence[str] = (),
    *,
    strict: bool = False,
    movement: Movement | None = None,
) -> Verdict:
    """git's verdict on the repository that `root` lies in.

    directories: state directories beside those that are found by name and configuration.
    allow: paths or patterns, relative to `root`, that are committed on purpose.
    strict: makes failures of warnings. movement: what is pushed or received, as git told.
    Raises `ToolFailed` where there is no repository, or git cannot answer.
    """
    from bundler.guard.moments import verdict_at
    from bundler.guard.verdict import Movement

    movement = movement or Movement()
    return verdict_at(root, moment, directories, allow, strict=strict, movement=movement)


def main() -> int:
    """The console script ``state-guard``."""
    import sys

    arguments = sys.argv[1:]
    compare = None
    if arguments[:1] == ["--staged"] and not any(word.startswith("-") for word in arguments[1:]):
        from bundler.guard.quick import look

        compare = look(arguments[1:])
        if compare == ():
            return 0
    from bundler.guard.command import run

    return run(arguments, compare)
