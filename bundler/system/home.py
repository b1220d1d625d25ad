"""The user's own folders, as far as they exist: many containers run with only a user id."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """The home directory; the root directory for a user without one."""
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        return Path("/")


def docker_home(environ: Mapping[str, str]) -> Path:
    """Where docker keeps the user's contexts, logins and plugins."""
    return Path(environ.get("DOCKER_CONFIG") or home(environ) / ".docker")


def docker_configuration(environ: Mapping[str, str]) -> Path:
    """The file with docker's settings, the current context and logins."""
    return docker_home(environ) / "config.json"


def cache(*, creates: bool = True) -> Path | None:
    """The folder for cached data; None if the user cannot write to any.

    creates: whether to make it; None if it does not exist otherwise.
    """
    from platformdirs import user_cache_path

    return _made(lambda: user_cache_path("state-bundler"), creates=creates)


def logs() -> Path | None:
    """The folder for logs; None if the user cannot write to any."""
    from platformdirs import user_log_path

    return _made(lambda: user_log_path("state-bundler"))


def _made(path: Callable[[], Path], *, creates: bool = True) -> Path | None:
    with suppress(RuntimeError, OSError):
        folder = path()
        if creates:
            folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None
