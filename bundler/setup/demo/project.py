"""The sample project, written into a folder."""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path

from bundler.errors import UsageError
from bundler.project.config import pyproject_of
from bundler.system.atomic import io_errors
from bundler.system.packaged_files import template, template_files

_BUILT = ("build/shop.pex", "build/state-image", "build/state.html", "build/demo.Dockerfile")


def write_sample(folder: Path) -> None:
    """Writes the project of ``templates/shop``; files of the same name are replaced.

    Raises `InputOutputError` if the folder cannot be written.
    """
    with io_errors(folder):
        for path, content in template_files("shop"):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def prepare_folder(folder: Path) -> None:
    """Writes the sample into a new or empty folder, or again into one that contains it.

    What an earlier demo built is removed; its environment stays, and so does a file of the sample
    that was changed, as ``NAME.before``. Raises `UsageError` for a folder with anything else.
    """
    with io_errors(folder):
        if folder.exists() and any(folder.iterdir()) and not _is_ours(folder):
            raise UsageError(
                f"{folder} is not empty and is not the sample project.",
                hint="Choose a new or empty folder: state-bundler demo FOLDER",
            )
        for name in _BUILT:
            _remove(folder / name)
        if (folder / "build").is_dir() and not any((folder / "build").iterdir()):
            (folder / "build").rmdir()
        for path, content in template_files("shop"):
            _keep_changed(folder / path, content)
    write_sample(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _keep_changed(path: Path, content: bytes) -> None:
    """Renames files that differ from the sample, including links."""
    if os.path.lexists(path) and (path.is_symlink() or path.read_bytes() != content):
        names = (path.with_name(f"{path.name}.before{number or ''}") for number in count())
        path.rename(next(name for name in names if not os.path.lexists(name)))


def write_dotenv(folder: Path, variables: dict[str, str]) -> None:
    """Writes the variables for the components; git ignores the file."""
    file = folder / ".env"
    with io_errors(file):
        there = file.read_text().splitlines() if file.is_file() else []
        if {line.partition("=")[0] for line in there} - variables.keys() or file.is_symlink():
            _keep_changed(file, b"")
        lines = [f"{name}={value}\n" for name, value in variables.items()]
        file.write_text("".join(lines))


def _is_ours(folder: Path) -> bool:
    file = pyproject_of(folder)
    line = 'description = "The sample project of state-bundler'
    stored = template("shop/pyproject.toml").read_text(encoding="utf-8")
    return line in stored and file.is_file() and line in file.read_text(errors="replace")
