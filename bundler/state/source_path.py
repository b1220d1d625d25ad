"""Which directory a source's ``path`` may name: one for state only, in the project.

What is published there replaces what was there, so a directory that others use is refused. Imports
next to nothing: the guard asks at every commit.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ADVICE = 'Choose a new directory that is used for state only, such as path = "src/package/state".'
_VERSION_CONTROL = (".git", ".hg", ".svn", ".jj")


def path_problem(path: str) -> str | None:
    """Why a path is not a directory in the project for state only, as the end of a message."""
    parts = parts_of(path)
    if not path.isprintable():
        return "contains a control character"
    if path.startswith(("/", "~")) or ".." in parts or "\\" in path:
        return "is not inside the project"
    if not parts:
        return "is the project itself"
    if any(part.casefold() in _VERSION_CONTROL for part in parts):
        return "belongs to version control"
    return None


def parts_of(path: str) -> tuple[str, ...]:
    """The names in a relative path; empty for the directory itself."""
    return tuple(part for part in path.split("/") if part not in ("", "."))


def holds(directory: str, path: str) -> bool:
    """Whether a relative path is a directory or inside it, on any file system."""
    outer, inner = (tuple(map(str.casefold, parts_of(each))) for each in (directory, path))
    return inner[: len(outer)] == outer


def nested(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two different paths of which one contains the other."""
    seen: list[str] = []
    for path in paths:
        for other in seen:
            if parts_of(other) != parts_of(path) and (holds(other, path) or holds(path, other)):
                return other, path
        seen.append(path)
    return None


def is_allowed(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches a path, or a directory above it."""
    if not patterns:
        return False
    from fnmatch import fnmatchcase

    return any(fnmatchcase(each, pattern) for each in _above(path) for pattern in patterns)


def _above(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
