"""What git ignores below a folder, for what must not ship."""

from __future__ import annotations

import itertools
import os

from bundler.git.questions import ignored_question
from bundler.git.repository import open_repository

TYPE_CHECKING = False  # the guard would wait for `typing`, and for `pathlib`
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def ignored_below(place: Path) -> Iterator[str]:
    """What git ignores below a folder, relative to it; nothing if that is ignored as a whole.

    A folder that is listed with something in it is not ignored itself: it has nothing else.
    """
    repository = open_repository(place)
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
