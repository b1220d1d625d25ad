"""Images in a Docker engine: build them with the person's own docker, embed, read back, name.

`bundler.artifacts.docker.building` runs docker's own build; all else is here. What reads an image
does not wait for what embeds: a name is looked up when somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
_PLACES = {
    "connection": ("Docker", "Engine", "split_options"),
    "embedding": ("Embedded", "embed", "split_name", "tag"),
    "opening": ("EngineImage", "open_image"),
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
