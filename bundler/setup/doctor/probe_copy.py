"""A copy of a project that is small and has a made-up state: what a build backend is tried on.

It has the project's files, without large contents, credentials, environments and caches; of each
folder above, up to the top of the repository, the files directly in it (ignore files, a shared
README); and what pyproject.toml names above the project. Links lead to the copies of what they
lead to. The published state is not copied: files of the same names say where they are from.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from bundler.errors import ToolFailed
from bundler.git.copying import copy_repository
from bundler.project.config import table
from bundler.project.survey import Survey
from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY
from bundler.state.manifest import Contents, File, build, state_of
from bundler.state.statedir import IGNORE_EVERYTHING, IGNORE_NAME
from bundler.state.tree import hash_file, scan
from bundler.system.credential_files import holds_credentials
from bundler.system.reading import scanned
from bundler.system.walking import files_below

# Folders that no wheel is made from, or that an earlier build left.
_PASSED_OVER = {
    ".git",
    ".hg",
    ".nox",
    ".svn",
    ".tox",
    "__pycache__",
    "node_modules",
    "site-packages",
}
_LEFT_BY_BUILDS = ("build/lib*", "build/bdist*", "dist")
# What an environment in the project's own folder has there.
_IN_ENVIRONMENTS = ("bin", "include", "lib", "lib64")
# Files that say of a folder that it is a virtual environment or a cache.
_MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")
_MOST_PATHS = 10_000
_MOST_BYTES = 256 * 1024
_MOST_BYTES_TOGETHER = 128 * 1024 * 1024
_MOST_STATE_FILES = 200
# The backends whose table does not have their name.
_TABLES = {"hatchling": ("hatch",), "uv_build": ("uv", "build-backend")}
_MADE_UP_KEY = "MadeUp"


class MadeUpFile(msgspec.Struct, frozen=True):
    """A file of the made-up state.

    path: in the project; the file's content, too. place: in a wheel, or the end of it if the root
    of the imports is not known. is_certain: whether every state has such a file; else only a dbt
    project's.
    """

    path: str
    place: str
    is_root_known: bool
    is_certain: bool = True

    def is_at(self, name: str) -> bool:
        """Whether a member of a wheel is where the program looks for this file."""
        return name == self.place if self.is_root_known else f"/{name}".endswith(f"/{self.place}")


class ProjectCopy(msgspec.Struct, frozen=True):
    """A copy: its folder, the project in it, and the made-up files."""

    top: Path
    root: Path
    files: tuple[MadeUpFile, ...]

    def again(self, top: Path) -> ProjectCopy:
        """A copy of the copy. Raises `OSError`."""
        shutil.copytree(self.top, top, symlinks=True)
        return ProjectCopy(top, top / self.root.relative_to(self.top), self.files)

    def ignores(self, directories: Iterable[PurePosixPath]) -> bool:
        """Whether the nearest ignore file has a rule for each of these directories."""
        rules = {rule.strip("/") for rule in scanned(self._ignore_file).split()}
        return all(self._rule(directory).strip("/") in rules for directory in directories)

    def ignore(self, directories: Iterable[PurePosixPath]) -> None:
        """Adds a rule for each of these directories of the project to the nearest ignore file."""
        rules = map(self._rule, directories)
        with self._ignore_file.open("a") as stream:
            stream.write("\n".join(["", *rules, ""]))

    def _rule(self, directory: PurePosixPath) -> str:
        if directory.name == STATE_DIRECTORY:
            return STATE_DIRECTORY
        return f"/{(self.root / directory).relative_to(self._ignore_file.parent).as_posix()}"

    @property
    def _ignore_file(self) -> Path:
        above = [path for path in (self.root, *self.root.parents) if path.is_relative_to(self.top)]
        files = [path / IGNORE_NAME for path in above]
        return next((file for file in files if file.is_file()), files[0])


def copy_project(survey: Survey, top: Path) -> ProjectCopy:
    """Copies the project into the new folder `top`.

    Raises `OSError` for a file that cannot be copied, `ToolFailed` for a project that is too large
    or partly outside its repository, or if git cannot answer.
    """
    anchor = survey.repository or _anchor(survey.root)
    named = list(_named_above(survey, anchor))
    outermost = Path(os.path.commonpath([anchor, *named]))
    copying = _Copying(outermost, top, anchor, survey)
    for path in (survey.root, *named):
        copying.copy_tree(path)
    for folder in survey.root.parents:
        if folder.is_relative_to(anchor):
            copying.copy_files(folder)
    root = copying.target(survey.root)
    files = tuple(
        file for path in survey.state_directories for file in _make_up(survey, path, root)
    )
    if survey.repository is not None:
        copy_repository(survey.repository, copying.target(survey.repository))
    return ProjectCopy(top, root, files)


def _anchor(root: Path) -> Path:
    """The top of Mercurial's repository; without one, the folder whose rules hatchling reads."""
    above = (root, *root.parents)
    for marks in ((".hg",), (".gitignore", ".hgignore")):
        for folder in above:
            if any((folder / mark).exists() for mark in marks):
                return folder
    return root


def _named_above(survey: Survey, anchor: Path) -> Iterator[Path]:
    """What the backend's settings name above the project: files, and folders below `anchor`."""
    tool = _TABLES.get(survey.backend or "", (survey.backend or "",))
    for names in (("project",), ("tool", *tool)):
        for text in _texts(table(survey.pyproject, *names)):
            if text.startswith("../"):
                named = Path(os.path.normpath(survey.root / text.partition("*")[0]))
                path = _real(named.parent) / named.name
                is_above = survey.root.is_relative_to(path) or not path.is_relative_to(anchor)
                if os.path.isfile(path) if is_above else os.path.exists(path):
                    yield path


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from (key, *_texts(part))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises for a link that leads to itself


class _Copying:
    """Copies from below the folder `source` into `top`; no link is followed out of `anchor`."""

    def __init__(self, source: Path, top: Path, anchor: Path, survey: Survey) -> None:
        self._source = source
        self._top = top
        self._anchor = anchor
        self._root = survey.root
        states = {_real(survey.root / path) for path in survey.state_directories}
        if not all(state.is_relative_to(anchor) for state in states):
            raise ToolFailed(f"A link leads from the state's folder out of {anchor}.")
        left = (path for pattern in _LEFT_BY_BUILDS for path in survey.root.glob(pattern))
        self._left_out = states.union(left)
        self._seen: set[Path] = set()
        self._paths_left = _MOST_PATHS
        self._bytes_left = _MOST_BYTES_TOGETHER

    def target(self, path: Path) -> Path:
        return self._top / path.relative_to(self._source)

    def copy_tree(self, start: Path) -> None:
        """Copies a file, or a folder with everything in it, and what links in it lead to."""
        pending = [start]
        while pending:
            path = pending.pop()
            if path in self._seen or self._is_left_out(path):
                continue
            self._seen.add(path)
            self._paths_left -= 1
            self.target(path).parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                pending += self._copy_link(path)
            elif path.is_dir():
                self.target(path).mkdir(exist_ok=True)
                pending += _entries(path)
            elif path.is_file():
                self._copy_file(path)
            if min(self._paths_left, self._bytes_left) < 0:
                raise ToolFailed("The project has too many files to copy.")

    def copy_files(self, folder: Path) -> None:
        """Copies the files directly in a folder."""
        for path in _entries(folder):
            if os.path.isfile(path):
                self.copy_tree(path)

    def _copy_link(self, path: Path) -> list[Path]:
        """Returns what has to be copied for the link to lead to it."""
        real = _real(path)
        if not os.path.exists(real):
            return []
        if real.is_relative_to(self._anchor) and self._is_copied(real):
            self.target(path).symlink_to(os.path.relpath(real, path.parent))
            return [] if self._root.is_relative_to(real) else [real]
        if os.path.isfile(path):
            self.target(path).touch()
        return []

    def _copy_file(self, path: Path) -> None:
        """Copies a file that may be read by a build; for any other one an empty file is enough."""
        size = path.stat().st_size
        if size <= _MOST_BYTES and os.access(path, os.R_OK):
            self._bytes_left -= size
            shutil.copy(path, self.target(path))
        else:
            self.target(path).touch()

    def _is_copied(self, path: Path) -> bool:
        tops = (self._root, self._anchor)
        inside = takewhile(lambda each: each not in tops, (path, *path.parents))
        return not any(map(self._is_left_out, inside))

    def _is_left_out(self, path: Path) -> bool:
        """By what it is itself, wherever it is. The project's own folder never is."""
        # In a linked work tree .git is a file, and would make the copy a part of the repository.
        return path != self._root and (
            path in self._left_out
            or path.name in _PASSED_OVER
            or path.name.endswith(".egg-info")
            or holds_credentials(path.relative_to(self._source).as_posix(), path)
            or (path.name in _IN_ENVIRONMENTS and os.path.exists(path.parent / "pyvenv.cfg"))
            or any(os.path.exists(path / mark) for mark in _MARKS)
        )


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []


def _make_up(survey: Survey, directory: PurePosixPath, root: Path) -> Iterator[MadeUpFile]:
    """Writes a state directory into the project in `root`, as a refresh would have left it."""
    made = root / directory
    made.mkdir(parents=True, exist_ok=True)
    (made / IGNORE_NAME).write_bytes(IGNORE_EVERYTHING)
    modules = survey.dagster.defs.replace(".", "/") if survey.dagster is not None else ""
    is_dagsters = directory.name == STATE_DIRECTORY and bool(modules)
    place = PurePosixPath(modules if is_dagsters else "", directory.name)
    published = _published(survey.root / directory)
    names = dict.fromkeys(published or [f"{_MADE_UP_KEY}/state"], True)
    if not published and is_dagsters:
        names[f"{_MADE_UP_KEY}/project/target/manifest.json"] = False
    for name, is_certain in names.items():
        path = directory / name
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(os.fsencode(path))
        yield MadeUpFile(str(path), str(place / name), is_dagsters, is_certain)
    keys = sorted({name.split("/")[0] for name in names})
    support = File(IGNORE_NAME, *hash_file(made / IGNORE_NAME))
    states = tuple(state_of(key, key, scan(made / key)) for key in keys)
    (made / MANIFEST_NAME).write_bytes(build(Contents(states), (support,)).raw)


def _published(directory: Path) -> list[str]:
    """The files of the states that are on disk, or the first of them."""
    found = (
        path.relative_to(directory).as_posix()
        for key in sorted(directory.glob("[!@.]*/"))
        for path in files_below(key)
    )
    return list(islice(found, _MOST_STATE_FILES))
