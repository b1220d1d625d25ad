"""Lets plain ``docker build`` do what ``docker bundle build`` does: docker's alias for builders.

docker knows one alias, in the person's own configuration: ``{"aliases": {"builder": "bundle"}}``.
What has nothing to do with state the plugin hands on to docker as it is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bundler.artifacts.image.engine.dockerhome import CONFIGURATION, dockerhome
from bundler.errors import ConfigurationError
from bundler.system.atomic import io_errors, write_synced

_COMMAND = "bundle"


def install() -> Path | None:
    """Takes ``docker build`` over; None where it is so already.

    Raises `ConfigurationError` where another program has it, or the file is no JSON.
    """
    target = dockerhome(os.environ) / CONFIGURATION
    settings = _read(target)
    aliases = settings.setdefault("aliases", {})
    if (other := aliases.get("builder")) == _COMMAND:
        return None
    if other:
        raise ConfigurationError(
            f"In {target} `docker build` is an alias of {other} already.",
            hint="docker buildx uninstall" if other == "buildx" else "Take that out first.",
        )
    aliases["builder"] = _COMMAND
    _write(target, settings)
    return target


def remove() -> Path | None:
    """Gives ``docker build`` back; None where it was docker's own."""
    target = dockerhome(os.environ) / CONFIGURATION
    settings = _read(target)
    aliases = settings.get("aliases") or {}
    if aliases.get("builder") != _COMMAND:
        return None
    del aliases["builder"]
    if not aliases:
        del settings["aliases"]
    _write(target, settings)
    return target


def _read(target: Path) -> dict[str, Any]:
    with io_errors(target):
        if not target.exists():
            return {}
        text = target.read_text()
    try:
        settings = json.loads(text or "{}")
        if isinstance(settings, dict) and isinstance(settings.get("aliases") or {}, dict):
            return settings
    except ValueError:
        pass
    raise ConfigurationError(f"{target} is not what docker writes there.", hint="Mend it by hand.")


def _write(target: Path, settings: dict[str, Any]) -> None:
    """As docker writes it: tabs, and for nobody else, since it may hold credentials."""
    with io_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        before = os.umask(0o077)
        try:
            write_synced(target.resolve(), (json.dumps(settings, indent="\t") + "\n").encode())
        finally:
            os.umask(before)
        target.chmod(mode)
