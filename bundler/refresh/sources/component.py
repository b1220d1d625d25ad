"""Components based on `bundler.component`, named in the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.errors import BundlerError, ConfigurationError
from bundler.project.layout import import_path
from bundler.project.options import SourceOptions
from bundler.project.source_paths import refuse_used
from bundler.refresh.model import Source

if TYPE_CHECKING:
    from bundler.project.projects import Project
    from bundler.refresh.outcome.exchanges import Link
    from bundler.refresh.secrets import Secrets


def sources(project: Project) -> Iterator[Source]:
    """One source per state directory."""
    for path, place, entries in by_directory(project, "component"):
        yield Source(
            project,
            "component",
            project.interpreter.path,
            {
                "root": str(project.root),
                "directory": str(path),
                "place": place,
                "entries": [
                    {"component": entry.component, "key": entry.key or ""} for entry in entries
                ],
            },
        )


def by_directory(
    project: Project, kind: str
) -> Iterator[tuple[Path, str, Sequence[SourceOptions]]]:
    """The configured sources of a kind by their state directory, with its place.

    Raises `ConfigurationError` if two sources of one directory disagree on its place, and for a
    path that is used by something else.
    """
    groups: dict[Path, list[SourceOptions]] = {}
    for options in project.config.sources:
        if getattr(options, kind):
            groups.setdefault(options.path, []).append(options)
    for path, entries in groups.items():
        places = {_place(entry) for entry in entries}
        if len(places) > 1:
            raise ConfigurationError(
                f"{project.config.file}: the sources at {path} have different places: "
                f"{', '.join(sorted(places))}.",
                hint="Give all of them the same `place`, or none.",
            )
        refuse_used(project.config, project.dagster, path.as_posix())
        yield project.root / path, places.pop(), entries


def _place(options: SourceOptions) -> str:
    if options.place is not None:
        return options.place
    return import_path(options.path.parts)


def load_error(
    source: Source, chain: Sequence[Link], secrets: Secrets, image: str | None
) -> BundlerError:
    """Why the components could not be imported."""
    from bundler.refresh.outcome.exchanges import quoted
    from bundler.refresh.sources.missing import how_to_fix

    names = ", ".join(entry["component"] for entry in source.load["entries"])
    return ConfigurationError(
        f"{names} of {source.project.name} cannot be loaded: {quoted(chain[-1], secrets)}.",
        hint=how_to_fix(source.project, chain, image)
        or f"Try: {source.python} -c 'import {names.split(':')[0].split(',')[0]}'",
    )
