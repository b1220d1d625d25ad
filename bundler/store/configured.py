"""Which store is meant: the one that is named, else the environment's, else a project's."""

from __future__ import annotations

import os
from pathlib import Path

from bundler.errors import ConfigurationError
from bundler.project.config import STORE_VARIABLE, load
from bundler.store.store import Store, open_store


def url_of(url: str | None, root: Path) -> str:
    """The store's URL. Raises `ConfigurationError` if none is configured."""
    found = url or os.environ.get(STORE_VARIABLE) or load(root).store
    if not found:
        raise ConfigurationError(
            "No store is configured.",
            hint='Add store = "s3://bucket/prefix" to [tool.state-bundler], or pass --store URL.',
        )
    return found


def open_configured(url: str | None, root: Path) -> Store:
    """The store that the options or the configuration name."""
    return open_store(url_of(url, root))
