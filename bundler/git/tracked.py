"""What git tracks below a directory."""

from __future__ import annotations

import os

from bundler.errors import ToolFailed
from bundler.git.questions import below, ignores_case, index_entries, index_question
from bundler.git.repository import open_repository
from bundler.git.words import printable
from bundler.system.git_directory import ignores_case as config_ignores_case
from bundler.system.git_directory import locate
from bundler.system.index_file import RawIndex


def tracked_below(directory: str | os.PathLike[str]) -> list[str]:
    """The paths that git tracks below a directory, relative to it; none outside of a repository.

    The directory need not exist. Raises `ToolFailed` if git cannot answer.
    """
    place = os.path.realpath(os.fsencode(directory))
    try:
        found = locate(place)
    except (OSError, ValueError) as error:
        raise ToolFailed(
            f"The repository of {printable(place)} cannot be read: {error}."
        ) from error
    if found is None or found.top is None:
        return []
    relative = place[len(found.top.rstrip(b"/")) + 1 :]
    if _has_none(found.git_dir, relative):
        return []
    repository = open_repository(os.fsdecode(found.top))
    if repository is None:
        return []
    pathspecs = [below(relative, ignore_case=ignores_case(repository))] if relative else []
    (answer,) = repository.ask(index_question(pathspecs))
    start = len(relative) + 1 if relative else 0
    return [os.fsdecode(entry.path[start:]) for entry in index_entries(answer)]


def _has_none(git_dir: bytes, relative: bytes) -> bool:
    """Whether the bytes of a plain index rule it out, so that git need not be asked."""
    try:
        names = os.listdir(git_dir)
        if any(name.startswith(b"sharedindex.") for name in names):
            return False
        if b"index" not in names:  # nothing was ever added
            return True
        fold = b"config" not in names or config_ignores_case(git_dir)
        with RawIndex(git_dir + b"/index") as index:
            plain = index.is_plain() and index.is_whole()
            return plain and not index.holds(relative + b"/", ignore_case=fold)
    except OSError:
        return False
