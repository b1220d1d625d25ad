"""The sample project, written into a folder."""

from __future__ import annotations

from pathlib import Path

from bundler.errors import InputOutputError
from bundler.resources import template_files


def write_sample(folder: Path) -> None:
    """Writes the project of ``templates/shop``; files of the same name are replaced.

    Raises `InputOutputError` where the folder cannot be written.
    """
    try:
        for path, content in template_files("shop"):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    except OSError as error:
        raise InputOutputError(
            f"The sample project cannot be written to {error.filename}: {error.strerror}."
        ) from error
