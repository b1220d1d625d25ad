"""Images in a Docker engine: build them with the person's own docker, embed, read back, name."""

from __future__ import annotations

from bundler.artifacts.docker.arguments import Arguments, parse
from bundler.artifacts.docker.building import Built, build, preflight
from bundler.artifacts.docker.connection import Docker, Engine, split_options
from bundler.artifacts.docker.embedding import Embedded, embed, split_name, tag
from bundler.artifacts.docker.opening import EngineImage, open_image

__all__ = [
    "Arguments",
    "Built",
    "Docker",
    "Embedded",
    "Engine",
    "EngineImage",
    "build",
    "embed",
    "open_image",
    "parse",
    "preflight",
    "split_name",
    "split_options",
    "tag",
]
