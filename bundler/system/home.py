"""The user's own places, as far as there are any: many containers run with a user id alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """The home directory; the root for a user without one."""
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        return Path("/")


def cache() -> Path | None:
    """The folder for what can be made again; None for a user who can write to none."""
    from platformdirs import user_cache_path

    return _made(lambda: user_cache_path("state-bundler"))


def logs() -> Path | None:
    """The folder for logs; None for a user who can write to none."""
    from platformdirs import user_log_path

    return _made(lambda: user_log_path("state-bundler"))


def _made(path: Callable[[], Path]) -> Path | None:
    with suppress(RuntimeError, OSError):
        folder = path()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None
