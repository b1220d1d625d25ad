"""The environment variables that a Dagster project's declarations reference."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from bundler.system.reading import scanned

_DECLARATIONS = ("defs.yaml", "defs.yml", "component.yaml")
# {{ env.NAME }} and {{ env('NAME') }}, the two forms of Dagster's templates; one with a default is
# not required.
_WANTED = re.compile(r"\{\{\s*env(?:\.(\w+)|\(\s*['\"](\w+)['\"]\s*\))\s*\}\}")


def named_in(root: Path) -> dict[str, list[str]]:
    """The variables in the project's declarations, each with the files that name it."""
    found: dict[str, list[str]] = {}
    for name in _DECLARATIONS:
        for file in sorted(root.rglob(name)):
            if {".venv", "venv", "node_modules", "site-packages"}.isdisjoint(file.parts):
                for one, other in _WANTED.findall(scanned(file)):
                    files = found.setdefault(one or other, [])
                    files.append(file.relative_to(root).as_posix())
    return found


def unset(named: Mapping[str, list[str]], from_file: Mapping[str, str]) -> dict[str, list[str]]:
    """Those that neither the environment nor ``.env`` sets. from_file: what ``.env`` sets."""
    known = {**os.environ, **from_file}
    return {name: files for name, files in named.items() if not known.get(name)}
