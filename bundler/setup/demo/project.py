"""The demo's sample project, the environment that its commands run in, and its Docker image.

It starts installers itself, since it acts for the user and not for the bundler.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from bundler.artifacts.image.engine.connection import Docker
from bundler.errors import ToolFailed, UsageError
from bundler.project.config import pyproject_of
from bundler.project.environment_tools import find_uv
from bundler.system.atomic import io_errors
from bundler.system.packaged_files import template, template_files
from bundler.system.process import run

DOCKERFILE = "build/demo.Dockerfile"
_BUILT = ("build/shop.pex", "build/state-image", "build/state.html", DOCKERFILE)
_INSTALL_TIMEOUT_SECONDS = 900.0
_STAMP = "installed-by-the-demo"
# Variables that would lead our commands away from the demo's own project.
_FOREIGN = ("GIT_", "DAGSTER_", "DG_", "SHOP_", "STATE_BUNDLER_", "UV_PROJECT_", "VIRTUAL_ENV")
_BASE = "STATE_BUNDLER_DEMO_BASE"


# --- the project ------------------------------------------------------------------------------


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


# --- its environment --------------------------------------------------------------------------


def environment_of(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if not name.startswith(_FOREIGN)}
    return {**kept, "DAGSTER_DISABLE_TELEMETRY": "true"}


def install(folder: Path) -> bool:
    """Creates ``.venv`` with the project's dependencies and the project itself, editable.

    Returns False if the existing one still fits. Raises `ToolFailed`.
    """
    home = folder / ".venv"
    requirements = folder / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    stamp = home / _STAMP
    if stamp.exists() and stamp.read_text() == digest:
        return False
    python = str(home / "bin" / "python")
    uv = find_uv()
    if uv:
        _call(folder, [uv, "venv", "--clear", "--python", sys.executable, str(home)])
    else:
        _call(folder, [sys.executable, "-m", "venv", "--clear", str(home)])
        # pip alone would take minutes for what uv does in seconds.
        _call(folder, [python, "-m", "pip", "--disable-pip-version-check", "install", "uv"])
        uv = str(home / "bin" / "uv")
    pip = [uv, "pip", "install", "--python", python]
    _call(folder, [*pip, "--requirement", str(requirements)])
    # The list includes the build backend: nothing else has to be downloaded for the build.
    _call(folder, [*pip, "--no-deps", "--no-build-isolation", "--editable", str(folder)])
    stamp.write_text(digest)
    return True


def _call(folder: Path, argv: Sequence[str]) -> None:
    environment = environment_of(os.environ)
    done = run(argv, cwd=folder, env=environment, timeout=_INSTALL_TIMEOUT_SECONDS)
    if done.exit_code:
        said = done.stderr.decode(errors="replace").strip()
        raise ToolFailed(
            f"`{' '.join(argv[:3])} …` failed with exit code {done.exit_code}.",
            hint=said[-2000:] or "It printed no error message.",
        )


# --- its image --------------------------------------------------------------------------------


def base_image(environ: Mapping[str, str]) -> str:
    """The image to build on. Raises `ToolFailed` with the reason if no image can be built here.

    ``STATE_BUNDLER_DEMO_BASE`` names one with this Python; else it is the official one, pulled if
    needed. The demo copies its installation, so engine and machine must have the same platform.
    """
    if sys.platform != "linux":
        raise ToolFailed("The demo's environment only runs in an image if it was created on Linux.")
    name = environ.get(_BASE) or f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"
    docker = Docker.from_environment()
    docker.connect()
    if not docker.succeeds("image", "inspect", name) and not docker.succeeds(
        "pull", "--quiet", name
    ):
        raise ToolFailed(
            f"The engine has no image {name} and cannot pull it.",
            hint=f"Set {_BASE} to an image with this Python.",
        )
    return name


def write_dockerfile(folder: Path) -> None:
    """Writes the demo's Dockerfile where git ignores it."""
    target = folder / DOCKERFILE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(template("demo.Dockerfile").read_bytes())
