"""The demo's environment and repository, with the commands that a user would type.

It starts git and installers itself, since it acts for the user and not for the bundler.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundler.errors import ToolFailed
from bundler.project.environment_tools import find_uv
from bundler.system.process import run

_INSTALL_TIMEOUT_SECONDS = 900.0
_STAMP = "installed-by-the-demo"
# Variables that would lead our commands away from the demo's own project.
_FOREIGN = ("GIT_", "DAGSTER_", "DG_", "SHOP_", "STATE_BUNDLER_", "UV_PROJECT_", "VIRTUAL_ENV")


def environment_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the demo's commands."""
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
