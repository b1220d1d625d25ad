"""Commands that write a state: an argv list in the configuration, never a shell string."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.refresh.model import Source
from bundler.refresh.sources.component import by_directory

if TYPE_CHECKING:
    from bundler.project.projects import Project


def sources(project: Project) -> Iterator[Source]:
    """One source per state directory. Its worker needs only a Python, so it uses ours."""
    for path, place, entries in by_directory(project, "command"):
        yield Source(
            project,
            "command",
            Path(sys.executable),
            {
                "root": str(project.root),
                "directory": str(path),
                "place": place,
                "entries": [{"key": entry.key, "argv": list(entry.command)} for entry in entries],
            },
            judged_by="exit",
        )
