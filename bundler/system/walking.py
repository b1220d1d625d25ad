"""Walking a directory without leaving anything out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def walk(
    top: str | Path, *, topdown: bool = True, missing_ok: bool = False
) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk`, but a directory that cannot be read raises `OSError` instead of being skipped.

    top: a file has no directories or files below it. missing_ok: a directory that does not exist,
    or was removed meanwhile, has no files.
    """
    start = os.fspath(top)

    def fail(error: OSError) -> None:
        is_file = isinstance(error, NotADirectoryError) and error.filename == start
        if not is_file and not (missing_ok and isinstance(error, FileNotFoundError)):
            raise error

    return os.walk(start, topdown=topdown, onerror=fail)


def files_below(top: Path) -> Iterator[Path]:
    """Every file below a directory, in a fixed order. Raises `OSError` as `walk` does."""
    found = (Path(directory, name) for directory, _, names in walk(top) for name in names)
    return iter(sorted(found))
