"""The demonstration's Docker image: where an engine is reachable, on a base that can be had."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from bundler.errors import ToolFailed
from bundler.system.packaged_files import template

DOCKERFILE = "build/demo.Dockerfile"
_BASE = "STATE_BUNDLER_DEMO_BASE"


def base_image(environ: Mapping[str, str]) -> str | None:
    """The image to build on; None if there is no engine, or it can have no such image.

    ``STATE_BUNDLER_DEMO_BASE`` names one with this Python; else it is the official one's, pulled
    if need be. The demo copies what it has installed, so engine and machine must be one platform.
    """
    from bundler.artifacts.image.engine import Docker

    if sys.platform != "linux":
        return None
    name = environ.get(_BASE) or f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"
    docker = Docker.from_environment()
    try:
        docker.connect()
        known = docker.succeeds("image", "inspect", name)
        return name if known or docker.succeeds("pull", "--quiet", name) else None
    except ToolFailed:
        return None


def write_dockerfile(folder: Path) -> None:
    """Puts the demonstration's Dockerfile where it is kept out of git."""
    target = folder / DOCKERFILE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(template("demo.Dockerfile").read_bytes())
