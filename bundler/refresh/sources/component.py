"""What the configuration names: components based on `bundler.component`, and commands.

A command is an argv list, never a shell string.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """One source per kind and state directory.

    The worker of commands needs only a Python, so it uses ours.
    """
    for path, place, entries in _by_directory(project, "component"):
        components = [{"component": entry.component, "key": entry.key or ""} for entry in entries]
        load = _load(project, path, place, components)
        yield Source(project, "component", project.interpreter.path, load)
    for path, place, entries in _by_directory(project, "command"):
        commands = [{"key": entry.key, "argv": list(entry.command)} for entry in entries]
        load = _load(project, path, place, commands)
        yield Source(project, "command", Path(sys.executable), load, judged_by="exit")


def _load(project: Project, path: Path, place: str, entries: Sequence[Any]) -> dict[str, Any]:
    root, directory = str(project.root), str(path)
    return {"root": root, "directory": directory, "place": place, "entries": entries}


def _by_directory(
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
    return import_path(options.path.parts) if options.place is None else options.place


def load_error(
    source: Source, chain: Sequence[Link], secrets: Secrets, image: str | None
) -> BundlerError:
    """Why the components could not be imported."""
    from bundler.refresh.outcome.findings import quoted
    from bundler.refresh.sources.missing import how_to_fix

    names = ", ".join(entry["component"] for entry in source.load["entries"])
    return ConfigurationError(
        f"{names} of {source.project.name} cannot be loaded: {quoted(chain[-1], secrets)}.",
        hint=how_to_fix(source.project, chain, image)
        or f"Try: {source.python} -c 'import {names.split(':')[0].split(',')[0]}'",
    )
