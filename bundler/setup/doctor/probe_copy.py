"""A copy of a project that is small and has a made-up state: what a build backend is tried on.

It has the project's files, without large contents, credentials, environments and caches; of each
folder above, up to the top of the repository, the files directly in it (ignore files, a shared
README); and what pyproject.toml names above the project. The published state is not copied: files
of the same names say where they are from.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from bundler.git.copying import copy_repository
from bundler.project.survey import Survey
from bundler.state.bundle import MANIFEST_NAME, STATE_DIRECTORY
from bundler.state.manifest import Contents, File, build, state_of
from bundler.state.statedir import IGNORE_EVERYTHING, IGNORE_NAME
from bundler.state.tree import hash_stream, scan
from bundler.system.credential_files import has_credentials_name
from bundler.system.text_files import scanned
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
# Files that say of a folder that it is a virtual environment or a cache.
_MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")
_MOST_FILES = 5000
_MOST_FILES_IN_A_FOLDER = 500
_MOST_BYTES = 256 * 1024
_MOST_BYTES_TOGETHER = 64 * 1024 * 1024
_MOST_STATE_FILES = 200
_READ_BY_BUILDS = (".py", ".toml", ".cfg", ".in", ".md", ".rst", ".txt")
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

    def ignores(self, rules: Iterable[str]) -> bool:
        """Whether the nearest ignore file has all these rules."""
        text = scanned(self._ignore_file)
        return all(rule in text.split() for rule in rules)

    def ignore(self, rules: Iterable[str]) -> None:
        """Adds these rules to the nearest ignore file."""
        with self._ignore_file.open("a") as stream:
            stream.write("\n".join(["", *rules, ""]))

    @property
    def _ignore_file(self) -> Path:
        above = [path for path in (self.root, *self.root.parents) if path.is_relative_to(self.top)]
        files = [path / IGNORE_NAME for path in above]
        return next((file for file in files if file.is_file()), files[0])


def copy_project(survey: Survey, top: Path) -> ProjectCopy:
    """Copies the project into the new folder `top`.

    Raises `OSError` for a file that cannot be copied, `ToolFailed` if git cannot answer.
    """
    anchor = _anchor(survey.root)
    named = [path for path in _named_above(survey) if path.exists()]
    outermost = Path(os.path.commonpath([anchor, *named]))
    copying = _Copying(outermost, top, {survey.root / path for path in survey.state_directories})
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
    """The top of the repository; without one, the folder whose ignore rules hatchling reads."""
    above = (root, *root.parents)
    for marks in ((".git", ".hg"), (".gitignore", ".hgignore")):
        for folder in above:
            if any((folder / mark).exists() for mark in marks):
                return folder
    return root


def _named_above(survey: Survey) -> Iterator[Path]:
    """What pyproject.toml names above the project."""
    for text in _texts(survey.pyproject):
        if text.startswith("../"):
            yield Path(os.path.normpath(survey.root / text.partition("*")[0]))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from (key, *_texts(part))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


class _Copying:
    """Copies from below one folder into another, up to a number of files.

    What is near the top comes first. left_out: folders that are not copied.
    """

    def __init__(self, source: Path, top: Path, left_out: set[Path]) -> None:
        self._source = source
        self._top = top
        self._left_out = left_out
        self._seen: set[Path] = set()
        self._count = 0
        self._bytes_left = _MOST_BYTES_TOGETHER

    def target(self, path: Path) -> Path:
        return self._top / path.relative_to(self._source)

    def copy_tree(self, start: Path) -> None:
        if not start.is_dir():
            self._copy(start)
            return
        pending = deque([start])
        while pending and self._count < _MOST_FILES:
            folder = pending.popleft()
            real = folder.resolve()  # a link may lead back, or out
            if real not in self._seen and not self._is_left_out(folder, real):
                self._seen.add(real)
                pending.extend(self.copy_files(folder))

    def copy_files(self, folder: Path) -> list[Path]:
        """Copies the files directly in a folder; returns the folders in it."""
        self.target(folder).mkdir(parents=True, exist_ok=True)
        entries = sorted(os.scandir(folder), key=_by_use) if os.access(folder, os.R_OK) else []
        for entry in [entry for entry in entries if entry.is_file()][:_MOST_FILES_IN_A_FOLDER]:
            self._copy(Path(entry.path))
        self._count += len(entries)
        return [Path(entry.path) for entry in entries if entry.is_dir()]

    def _copy(self, path: Path) -> None:
        """Copies a file that may be read by a build; for any other one an empty file is enough."""
        # In a linked work tree .git is a file, and would make the copy a part of the repository.
        if path.name in _PASSED_OVER or has_credentials_name(path.name):
            return
        target = self.target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size
        if size <= min(_MOST_BYTES, self._bytes_left) and os.access(path, os.R_OK):
            self._bytes_left -= size
            shutil.copy(path, target)
        else:
            target.touch()

    def _is_left_out(self, folder: Path, real: Path) -> bool:
        return (
            not real.is_relative_to(self._source)
            or folder in self._left_out
            or folder.name in _PASSED_OVER
            or folder.name.endswith(".egg-info")
            or any(folder.match(pattern) for pattern in _LEFT_BY_BUILDS)
            or any((folder / mark).exists() for mark in _MARKS)
        )


def _by_use(entry: os.DirEntry[str]) -> tuple[bool, str]:
    """What builds read comes first, in case that there is too much."""
    return not entry.name.endswith(_READ_BY_BUILDS), entry.name


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
    with (made / IGNORE_NAME).open("rb", buffering=0) as stream:
        support = File(IGNORE_NAME, *hash_stream(stream))
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
