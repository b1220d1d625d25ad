"""Reads files and directories that may not be readable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler.errors import unreadable
from bundler.system.git_directory import read_regular


@contextmanager
def reading(path: object) -> Iterator[None]:
    """Turns an `OSError` into an `InputOutputError` that says that this cannot be read."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


def scanned(path: Path, limit: int = -1) -> str:
    """A file's text for a search, whatever its encoding; empty if no regular file can be read.

    limit: in bytes; the rest is ignored.
    """
    try:
        return read_regular(os.fsencode(path), limit).decode("utf-8", "replace")
    except OSError:
        return ""
