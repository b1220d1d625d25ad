"""dbt's models as assets without a component: ``@dbt_assets`` with a manifest that dbt writes.

Dagster does not know that the manifest is state. Detected only by the text of the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bundler.project.config import pyproject_of
from bundler.project.layout import repository_of
from bundler.system.reading import scanned
from bundler.system.walking import walk

# Folders with other people's code, or with what a build has made.
_PASSED_OVER = {"node_modules", "site-packages", "dbt_packages", "target", "dist", "build", "logs"}
MOST_FOLDERS = 5000
_MOST_BYTES = 200_000
_USES = re.compile(r"(?m)^\s*@dbt_assets\b|\bDbtProject\(")


class ClassicDbt(msgspec.Struct, frozen=True):
    """code: the file that reads the manifest. project: the folder with ``dbt_project.yml``.
    home: the nearest folder of the code with a ``pyproject.toml``, else the one that was
    searched."""

    code: Path
    project: Path
    home: Path

    @property
    def key(self) -> str:
        return self.project.name

    @property
    def package(self) -> Path:
        """The outermost package of the code, or its folder."""
        outer = self.code.parent
        while self.home not in (outer, outer.parent) and (outer.parent / "__init__.py").exists():
            outer = outer.parent
        return outer

    @property
    def state_path(self) -> str:
        """The state directory of the source: next to the code, so that it ships with it."""
        return (self.package / "dbt_state").relative_to(self.home).as_posix()

    @property
    def command(self) -> list[str]:
        project = os.path.relpath(self.project, self.home)
        profiles = ["--profiles-dir", project] if (self.project / "profiles.yml").exists() else []
        words = ["dbt", "parse", "--quiet", "--project-dir", project, *profiles]
        return [*words, "--target-path", "{state_path}", "--log-level-file", "none"]

    @property
    def manifest(self) -> str:
        """The manifest in the state, relative to the code's folder."""
        state = self.home / self.state_path / self.key / "state" / "manifest.json"
        return os.path.relpath(state, self.code.parent)


def classic_dbt(root: Path) -> ClassicDbt | None:
    """The first classic dbt project in or below a folder, or in its repository."""
    code = next(_code(root), None)
    if code is None:
        return None
    home = next(
        (path for path in code.parents if pyproject_of(path).exists() or path == root), root
    )
    found = list(_declared(root)) or list(_declared(repository_of(root) or root))
    project = next((path for path in found if path.name in code.read_text(errors="replace")), None)
    project = project or next(iter(found), None)
    return None if project is None else ClassicDbt(code, project, home)


def _code(root: Path) -> Iterator[Path]:
    """The Python files that use it."""
    yield from (path for path in files(root) if path.suffix == ".py" and mentions(path, _USES))


def _declared(root: Path) -> Iterator[Path]:
    yield from (path.parent for path in files(root) if path.name == "dbt_project.yml")


def files(root: Path, *, must_be_all: bool = False) -> Iterator[Path]:
    """The files below a folder that people have written, folder by folder.

    must_be_all: whether to raise `OSError` for a folder that cannot be read, and for too many
    folders.
    """
    walked = walk(root) if must_be_all else os.walk(root)
    for count, (folder, folders, names) in enumerate(walked):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _PASSED_OVER
            and "{{" not in name  # a template of cookiecutter or copier
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
        )
        yield from (Path(folder, name) for name in sorted(names))
        if count == MOST_FOLDERS:
            if must_be_all:
                raise OSError(f"{root} has more than {MOST_FOLDERS} folders")
            return


def mentions(path: Path, pattern: re.Pattern[str]) -> bool:
    """Whether a pattern matches in the start of a text file."""
    return pattern.search(start_of(path)) is not None


def start_of(path: Path) -> str:
    """The start of a file's text, for a search; see `scanned`."""
    return scanned(path, _MOST_BYTES)
