"""Images in a Docker engine: build them with the person's own docker, embed, read back, name.

`bundler.artifacts.docker.building` runs docker's own build; all else is here.
"""

from __future__ import annotations

from bundler.artifacts.docker.connection import Docker, Engine, split_options
from bundler.artifacts.docker.embedding import Embedded, embed, split_name, tag
from bundler.artifacts.docker.opening import EngineImage, open_image

__all__ = [
    "Docker",
    "Embedded",
    "Engine",
    "EngineImage",
    "embed",
    "open_image",
    "split_name",
    "split_options",
    "tag",
]
