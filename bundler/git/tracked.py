"""What git tracks at a path and below it, without asking git where the index's bytes rule it out.

Raises `ToolFailed` if git cannot answer.
"""

from __future__ import annotations

import os

from bundler.errors import ToolFailed
from bundler.git.questions import below, ignores_case, in_index
from bundler.git.questions import exactly as only
from bundler.git.repository import open_repository
from bundler.git.words import printable
from bundler.system.git_directory import locate, may_ignore_case
from bundler.system.index_file import RawIndex


def tracked_below(directory: str | os.PathLike[str]) -> list[str]:
    """The paths that git tracks below a directory, relative to it; empty outside of a repository.

    The directory need not exist.
    """
    place = os.path.realpath(os.fsencode(directory))
    relative, paths = _tracked(place, place, exactly=False)
    start = len(relative) + 1 if relative else 0
    return [os.fsdecode(path[start:]) for path in paths]


def is_tracked(path: bytes, *, exactly: bool) -> bool:
    """Whether git tracks a path, which is not resolved, or anything below it."""
    return bool(_tracked(path, os.path.dirname(path), exactly=exactly)[1])


def _tracked(path: bytes, inside: bytes, *, exactly: bool) -> tuple[bytes, list[bytes]]:
    """A path in its repository, with the index entries of it (`exactly`) or below it.

    inside: a directory in the repository in question.
    """
    try:
        found = locate(inside)
    except (OSError, ValueError) as error:
        raise ToolFailed(f"The repository of {printable(path)} cannot be read: {error}.") from error
    if found is None or found.top is None:
        return b"", []
    relative = path[len(found.top.rstrip(b"/")) + 1 :]
    wanted = relative if exactly or not relative else relative + b"/"
    if _has_none(found.git_dir, wanted):
        return relative, []
    repository = open_repository(os.fsdecode(found.top))
    if repository is None:
        return relative, []
    pathspec = only(relative) if exactly else below(relative, ignore_case=ignores_case(repository))
    paths = [entry.path for entry in in_index(repository, [pathspec] if relative else [])]
    return relative, [path for path in paths if path == relative or not exactly]


def _has_none(git_dir: bytes, text: bytes) -> bool:
    """Whether the bytes of a plain index rule it out, so that git need not be asked."""
    try:
        names = os.listdir(git_dir)
        if any(name.startswith(b"sharedindex.") for name in names):
            return False
        if b"index" not in names:  # nothing was ever added
            return True
        fold = b"config" not in names or may_ignore_case(git_dir)
        with RawIndex(git_dir + b"/index") as index:
            plain = index.is_plain() and index.is_whole()
            return plain and not index.holds(text, ignore_case=fold)
    except OSError:
        return False
