"""Where docker keeps a user's settings: contexts, logins, plugins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bundler.system.home import home

CONFIGURATION = "config.json"


def dockerhome(environ: Mapping[str, str]) -> Path:
    """The folder: ``DOCKER_CONFIG``, else ``.docker`` in the home directory."""
    return Path(environ.get("DOCKER_CONFIG") or home(environ) / ".docker")
