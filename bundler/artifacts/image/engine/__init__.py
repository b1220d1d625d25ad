"""Images in a Docker engine: build them with the user's own docker, embed, read back, name.

`bundler.artifacts.image.engine.building` runs docker's own build; all else is here.
"""

from __future__ import annotations

from bundler.artifacts.image.engine.connection import Docker, Engine, split_options
from bundler.artifacts.image.engine.embedding import EngineDestination, tag
from bundler.artifacts.image.engine.opening import EngineImage, open_image

__all__ = [
    "Docker",
    "Engine",
    "EngineDestination",
    "EngineImage",
    "open_image",
    "split_options",
    "tag",
]
