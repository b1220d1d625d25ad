"""Searches text files of any kind."""

from __future__ import annotations

import os
from pathlib import Path

from bundler.system.git_directory import read_regular


def scanned(path: Path, limit: int = -1) -> str:
    """A file's text for a search, whatever its encoding; empty if no regular file can be read.

    limit: in bytes; the rest is ignored.
    """
    try:
        return read_regular(os.fsencode(path), limit).decode("utf-8", "replace")
    except OSError:
        return ""
