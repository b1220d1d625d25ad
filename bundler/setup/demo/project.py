"""The sample project, written into a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from bundler.errors import UsageError
from bundler.system.atomic import io_errors
from bundler.system.packaged_files import template, template_files


def write_sample(folder: Path) -> None:
    """Writes the project of ``templates/shop``; files of the same name are replaced.

    Raises `InputOutputError` where the folder cannot be written.
    """
    with io_errors(folder):
        for path, content in template_files("shop"):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def prepare_folder(folder: Path) -> None:
    """Writes the sample into a new or empty folder, or afresh into one that holds it.

    What an earlier demonstration built is removed; its environment stays. Raises `UsageError` for
    a folder that holds something else.
    """
    with io_errors(folder):
        if folder.exists() and any(folder.iterdir()) and not _is_ours(folder):
            raise UsageError(
                f"{folder} holds something that is not the sample project.",
                hint="Name another folder, or an empty one: state-bundler demo FOLDER",
            )
        shutil.rmtree(folder / "build", ignore_errors=True)
    write_sample(folder)


def write_dotenv(folder: Path, variables: dict[str, str]) -> None:
    """What the components read from the environment; git ignores the file."""
    with io_errors(folder):
        lines = [f"{name}={value}\n" for name, value in variables.items()]
        (folder / ".env").write_text("".join(lines))


def _is_ours(folder: Path) -> bool:
    file = folder / "pyproject.toml"
    line = 'description = "The sample project of state-bundler'
    stored = template("shop/pyproject.toml").read_text(encoding="utf-8")
    return line in stored and file.is_file() and line in file.read_text(errors="replace")
