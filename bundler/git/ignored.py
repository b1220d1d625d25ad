"""Lists what git ignores below a folder, so that it is not shipped."""

from __future__ import annotations

import itertools
import os

from bundler.git.questions import ignored_question
from bundler.git.repository import open_repository

TYPE_CHECKING = False  # `typing` and `pathlib` would slow the guard down
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def ignored_below(place: Path) -> Iterator[str]:
    """What git ignores below a folder, relative to it; empty if the folder itself is ignored.

    A folder in the result that is followed by entries below it is not ignored itself: all of its
    contents are.
    """
    repository = open_repository(place, fast=True)
    if repository is None or repository.top is None:
        return
    (answer,) = repository.ask(ignored_question())
    listed = sorted(set(answer.split(b"\0")) - {b""})
    below = os.path.relpath(os.path.realpath(os.fsencode(place)), repository.top) + b"/"
    prefix = b"" if below == b"./" else below
    for path, following in itertools.pairwise([*listed, b""]):
        is_opened = path.endswith(b"/") and following.startswith(path)
        if not is_opened and path.startswith(prefix) and path != prefix:
            yield os.fsdecode(path[len(prefix) :].rstrip(b"/"))
