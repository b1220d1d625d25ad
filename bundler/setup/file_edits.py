"""Changes to a user's files: planned as values, shown as a diff, and written atomically."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import ConfigurationError, InputOutputError
from bundler.system.atomic import io_errors, make_directories, save
from bundler.system.git_directory import read_regular


@dataclass(frozen=True)
class FileEdit:
    """One file's change. before, after: its text; None if the file does not exist.

    why: a message for each reason. within: the folder that the file must be in, wherever links
    lead.
    """

    path: Path
    before: str | None
    after: str | None
    why: tuple[str, ...]
    within: Path | None = None


def read_text(path: Path) -> str | None:
    """A text file with its line ends unchanged; None if it does not exist.

    Raises `InputOutputError` if it cannot be read or is not UTF-8.
    """
    with io_errors(path):
        try:
            return read_regular(os.fsencode(path)).decode("utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise InputOutputError(
                f"{path} is not UTF-8.", hint="Convert it, or make the change by hand."
            ) from error


def newline_of(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def diff(edits: Iterable[FileEdit], relative_to: Path) -> Iterator[str]:
    """The lines of a unified diff, without line ends, as ``patch -p1`` takes it."""
    for edit in edits:
        name = edit.path.relative_to(relative_to).as_posix()
        yield from difflib.unified_diff(
            (edit.before or "").splitlines(),
            (edit.after or "").splitlines(),
            "/dev/null" if edit.before is None else f"a/{name}",
            "/dev/null" if edit.after is None else f"b/{name}",
            lineterm="",
        )


def apply(edits: Sequence[FileEdit]) -> None:
    """Writes the edits, each file atomically.

    Raises `ConfigurationError` for a file that a link takes out of its folder. Raises
    `InputOutputError` if a file has changed since the edit was planned: then nothing is written;
    and if one cannot be written: then the files before it are.
    """
    for edit in edits:
        target = edit.path.resolve()
        if edit.within is not None and not target.is_relative_to(edit.within.resolve()):
            raise ConfigurationError(
                f"{edit.path} links to {target}, outside {edit.within}; nothing was written.",
                hint="Replace the link with a file, or make the change by hand.",
            )
        if read_text(edit.path) != edit.before:
            raise InputOutputError(
                f"{edit.path} changed in the meantime; nothing was written.",
                hint="Try again.",
            )
    for edit in edits:
        with io_errors(edit.path):
            _write(edit)


def _write(edit: FileEdit) -> None:
    if edit.after is None:
        edit.path.unlink()
        return
    make_directories(edit.path.resolve().parent)
    save(edit.path, edit.after.encode())
