"""Directories as artifacts: a state directory, or a tree that holds some.

This is what a plain ``COPY`` brought into an image, an unpacked wheel, or a project on disk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from bundler.errors import VerificationFailed, unreadable
from bundler.state.artifact import Artifact, Kind, Member
from bundler.state.bundle import MANIFEST_NAME, RUN_RECORD_NAME, STAGING_NAME, STATE_DIRECTORY
from bundler.state.manifest import DirectoryRefresh, RunRecord, decode_canonical
from bundler.verify_at_start import open_regular, read_regular

# Directories of dependencies and version control: large, and never a place for a project's state.
_NOT_SEARCHED = frozenset({".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", ".tox"})


class StateDirectoryOnDisk:
    """A state directory in the file system."""

    sealed = False
    concurrent = True

    def __init__(self, root: Path, path: str) -> None:
        self._root = root
        self.path = path

    def read_manifest(self) -> bytes | None:
        return _read(self._root / MANIFEST_NAME)

    def read_run_record(self) -> bytes | None:
        return _read(self._root / RUN_RECORD_NAME)

    def published_mark(self) -> tuple[int, int] | None:
        """A publish replaces the manifest last, by a new file."""
        refuse_interrupted(self._root)
        with _reading(self._root), suppress(FileNotFoundError):
            status = (self._root / MANIFEST_NAME).stat()
            return status.st_ino, status.st_mtime_ns
        return None

    def members(self) -> Iterator[Member]:
        pending = [""]
        while pending:
            below = pending.pop()
            for child in sorted(list_directory(self._root / below), key=lambda child: child.name):
                path = f"{below}/{child.name}" if below else child.name
                with _reading(self._root / path):
                    status = child.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)
                yield _member(self._root, path, status)


def _member(root: Path, path: str, status: os.stat_result) -> Member:
    is_file, is_folder = stat.S_ISREG(status.st_mode), stat.S_ISDIR(status.st_mode)
    kind: Kind = "file" if is_file else "directory" if is_folder else "other"
    size = status.st_size if is_file else 0
    return Member(path, kind, size, partial(_open, root / path), stat.S_IMODE(status.st_mode))


class DirectoryArtifact(Artifact):
    """A directory that is, or contains, state directories. It has no labels.

    Raises `VerificationFailed` if a publish was interrupted in one of them.
    """

    kind = "directory"

    def __init__(self, root: Path) -> None:
        found = find_state_directories(root)
        self._take(str(root), {path.relative_to(root).as_posix(): path for path in found})

    def _take(self, name: str, places: Mapping[str, Path]) -> None:
        self.name = name
        for directory in places.values():
            refuse_interrupted(directory)
        self._directories = tuple(
            StateDirectoryOnDisk(directory, place) for place, directory in places.items()
        )

    def run_record(self) -> RunRecord | None:
        """The records next to the manifests, merged; the build is that of the first."""
        records = []
        for directory in self._directories:
            raw = directory.read_run_record()
            if raw is not None:
                what = f"{self.name}/{directory.path}/{RUN_RECORD_NAME}"
                record = decode_canonical(raw, RunRecord, what)
                records.append((record, _only_refresh(record, directory.path)))
        if not records:
            return None
        refreshes = tuple(refresh for _, refresh in records)
        first = records[0][0]
        return RunRecord(first.build, refreshes, first.tool, first.environment)

    def state_directories(self) -> Sequence[StateDirectoryOnDisk]:
        return self._directories

    def published_mark(self) -> object:
        """Waits for a publish that is going on. Raises as `refuse_interrupted` does."""
        return [directory.published_mark() for directory in self._directories]


class PublishedDirectories(DirectoryArtifact):
    """The published state directories, under the places by which a project names them."""

    def __init__(self, name: str, places: Mapping[str, Path]) -> None:
        for path in places.values():
            refuse_interrupted(path)
        published = {
            place: path for place, path in places.items() if (path / MANIFEST_NAME).exists()
        }
        self._take(name, published)


def refuse_interrupted(directory: Path) -> None:
    """Raises `VerificationFailed` if a publish was interrupted: the files are then no consistent
    set."""
    if os.path.lexists(directory / STAGING_NAME):  # else it was made elsewhere
        from bundler.state import statedir

        statedir.refuse_interrupted(directory)


def _only_refresh(record: RunRecord, path: str) -> DirectoryRefresh:
    """The refresh in a directory's own record, under the directory's current path."""
    if len(record.refresh) == 1:
        return msgspec.structs.replace(record.refresh[0], path=path)
    return DirectoryRefresh(
        path,
        tuple(key for entry in record.refresh for key in entry.keys),
        removed_keys=tuple(key for entry in record.refresh for key in entry.removed_keys),
    )


def find_state_directories(root: Path) -> list[Path]:
    """`root` itself if it is a state directory, else all state directories below it, sorted."""
    if root.name == STATE_DIRECTORY or (root / MANIFEST_NAME).exists():
        return [root]
    found: list[Path] = []
    pending = [os.fspath(root)]
    while pending:
        for child in _folders(pending.pop()):
            if child.name == STATE_DIRECTORY or os.path.exists(f"{child.path}/{MANIFEST_NAME}"):
                if child.is_symlink():
                    raise VerificationFailed(
                        f"{child.path} is a link, so its target can change unnoticed.",
                        hint="Replace it with the directory itself, or pass that directory to the "
                        "command.",
                    )
                found.append(Path(child.path))
            elif not child.is_symlink() and child.name not in _NOT_SEARCHED:
                pending.append(child.path)
    return sorted(found)


def _folders(path: str) -> list[os.DirEntry[str]]:
    """The directory at the end of a path and those that lead to it; empty if it cannot be
    listed."""
    try:
        with os.scandir(path) as listing:
            return [child for child in listing if child.is_dir()]
    except OSError:
        return []


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise VerificationFailed(f"{path} cannot be used: {error}.") from error


def _read(path: Path) -> bytes | None:
    with _reading(path), suppress(FileNotFoundError):
        return read_regular(str(path))
    return None


def _open(path: Path) -> BinaryIO:
    with _reading(path):
        return open(open_regular(str(path)), "rb")


def list_directory(path: Path) -> list[os.DirEntry[str]]:
    """Lists a directory.

    Raises `InputOutputError`, and `VerificationFailed` for a path that is too long.
    """
    try:
        with os.scandir(path) as listing:
            return list(listing)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise VerificationFailed(f"A directory is nested too deeply: {path}.") from error
        raise unreadable(path, error) from error
