"""Where a component is declared: the file and line that an error message names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bundler.refresh.model import Component, Source

_NAMES = re.compile(r"""\s*(?:key|component)\s*=\s*["'](.*)["']\s*(?:#.*)?$""")


def declared_at(source: Source, component: Component) -> str:
    """``file:line``, relative to the current directory if it is below; empty if unknown."""
    if source.kind == "dagster":
        file, line = source.project.root / component.location, component.line
        if not component.location:
            return ""
    else:
        file = source.project.config.file
        line = _line_of(file, {component.key, component.location})
    path = os.path.relpath(file)
    shown = str(file) if path.startswith(os.pardir) else path
    return f"{shown}:{line}" if line else shown


def _line_of(file: Path, names: set[str]) -> int:
    """The line of a configuration file that names a source's key or class; 0 if none does."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeError):
        return 0
    found = (n for n, text in enumerate(lines, 1) if (it := _NAMES.match(text)) and it[1] in names)
    return next(found, 0)
