"""The demo's Docker image, if an engine and a base image are available."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from bundler.artifacts.image.engine.connection import Docker
from bundler.errors import ToolFailed
from bundler.system.packaged_files import template

DOCKERFILE = "build/demo.Dockerfile"
_BASE = "STATE_BUNDLER_DEMO_BASE"


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
