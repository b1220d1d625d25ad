"""Where docker keeps a person's settings: contexts, logins, plugins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CONFIGURATION = "config.json"


def dockerhome(environ: Mapping[str, str]) -> Path:
    """The folder: ``DOCKER_CONFIG``, else ``.docker`` in the home directory."""
    return Path(environ.get("DOCKER_CONFIG") or personal(environ) / ".docker")


def personal(environ: Mapping[str, str]) -> Path:
    """The person's home directory; the system's word for it where HOME is not set."""
    return Path(environ.get("HOME") or Path.home())
