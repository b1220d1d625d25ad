"""Where in an image the state of projects goes, as far as the user and local files say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bundler.artifacts.image.engine.arguments import Arguments
from bundler.errors import ConfigurationError, UsageError
from bundler.project.projects import Project
from bundler.workflows.pipeline import Prepared


def refuse_relative(image_path: str | None, projects: Sequence[Project]) -> None:
    """Raises `ConfigurationError` if the path in the image is relative."""
    named = image_path or projects[0].config.image_path
    if named is not None and not named.startswith("/"):
        raise ConfigurationError(
            f"image-path is {named!r}, which is not absolute.",
            hint=f"Write the whole path in the image, such as /app/{named}.",
        )


def places_of(prepared: Prepared, image_path: str | None = None) -> dict[str, str]:
    """The path in the image that the user configured, by the place it replaces.

    Raises `UsageError` if there is one path for several state directories.
    """
    named = image_path or prepared.projects[0].config.image_path
    if named is None:
        return {}
    if len(prepared.bundles) > 1:
        raise UsageError(
            f"The path {named} is for a single state directory, but there are several.",
            hint="Remove --image-path, or image-path from the configuration.",
        )
    return {bundle.place: named for bundle in prepared.bundles}


def import_root_hints(arguments: Arguments, projects: Sequence[Project]) -> list[str]:
    """Import roots of projects that the Dockerfile copies with their path in the context."""
    hints = []
    top = Path(arguments.context).resolve()
    for project in projects:
        root = project.root.resolve()
        if root != top and root.is_relative_to(top):
            below = root.relative_to(top).as_posix()
            hints += [f"{below}/src", below]
    return hints
