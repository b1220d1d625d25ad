"""Where states come from: Dagster, or what the configuration names.

A *source* belongs to one project and one state directory. It yields *components*, and it can
write the state of one of them to a path, in a process that can be killed. The configuration names
components based on `bundler.component`, and commands: argv lists, never shell strings.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundler.errors import BundlerError, ConfigurationError
from bundler.project.environment_tools import how_to_add, how_to_install
from bundler.project.layout import import_path
from bundler.project.options import SourceOptions
from bundler.project.source_paths import refuse_used
from bundler.refresh import declared_variables
from bundler.refresh.model import Source
from bundler.refresh.surroundings import from_dotenv
from bundler.system.wording import listed

if TYPE_CHECKING:
    from bundler.project.projects import Project
    from bundler.refresh.outcome.exchanges import Link
    from bundler.refresh.secrets import Secrets

_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_OURS = "bundler"


def sources_of(project: Project) -> Iterator[Source]:
    """The sources of a project: Dagster's first, then one per kind and state directory.

    The worker of commands needs only a Python, so it uses ours.
    """
    python = project.interpreter.path
    if project.dagster is not None:
        root = project.dagster.root
        target = project.dagster.target or f"{root}.definitions"
        load = {"root": str(project.root), "root_module": root, "target": target}
        yield Source(project, "dagster", python, load)
    for path, place, entries in _by_directory(project, "component"):
        components = [{"component": entry.component, "key": entry.key or ""} for entry in entries]
        yield Source(project, "component", python, _load(project, path, place, components))
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


# --- components that cannot be loaded ---------------------------------------------------------


def load_error(
    source: Source, chain: Sequence[Link], secrets: Secrets, image: str | None = None
) -> BundlerError:
    """Why a source could not list its components. image: the one that it was loaded in."""
    project, first = source.project, chain[0]
    name = first.type.rpartition(".")[2]
    if source.kind == "dagster" and name == "TooOldError":
        return ConfigurationError(
            f"{project.name} has Dagster {first.text}, which has no public state-backed "
            "components.",
            hint="Update it to 1.12 or later.",
        )
    if source.kind == "dagster" and name == "ModuleNotFoundError" and "'dagster'" in first.text:
        error = ConfigurationError(
            no_dagster(source.python, project),
            hint=how_to_install(project.root, project.interpreter.found_by),
        )
        error.why = _why_none_may_be_needed(project)
        return error
    from bundler.refresh.outcome.findings import quoted

    if source.kind == "dagster":
        what, otherwise = "The components", "For the full error, run: dg check defs"
        if image is None:
            otherwise = f"{_what_is_unset(project)}{otherwise}"
    else:
        names = [entry["component"] for entry in source.load["entries"]]
        what = ", ".join(names)
        otherwise = f"Try: {source.python} -c 'import {names[0].split(':')[0]}'"
    last = chain[-1]
    if last.type.endswith(".ValidationError"):
        # Dagster raises it again, with the file and the line of each setting.
        last = next(link for link in chain if link.type == last.type)
    return ConfigurationError(
        f"{what} of {project.name} cannot be loaded: {quoted(last, secrets)}.",
        hint=_how_to_get_what_is_missing(project, chain, image) or otherwise,
    )


def _what_is_unset(project: Project) -> str:
    """The variables that declarations reference without a value: often the reason."""
    unset = declared_variables.unset(
        declared_variables.named_in(project.root), from_dotenv(project)
    )
    if not unset:
        return ""
    are = "is" if len(unset) == 1 else "are"
    return f"{listed(sorted(unset), 5)}, which the declarations reference, {are} not set. "


def no_dagster(python: Path, project: Project) -> str:
    """The message for a project that is not installed."""
    return f"Dagster is not installed in {python}, the interpreter of {project.name}."


def _why_none_may_be_needed(project: Project) -> str:
    """What the files of a project without Dagster say; empty if they declare state."""
    from bundler.project.stateful import has_state
    from bundler.project.survey import survey

    if has_state(survey(project.root)):
        return ""
    return (
        "The project's files have no state-backed component, so there may be nothing to refresh; "
        "only loading the project with Dagster can confirm that."
    )


def _how_to_get_what_is_missing(
    project: Project, chain: Sequence[Link], image: str | None
) -> str | None:
    """What to install where; None if no package is missing."""
    found = (
        _NO_MODULE.search(link.text)
        for link in chain
        if link.type.endswith(("ModuleNotFoundError", "ImportError"))
    )
    name = next((match[1] for match in found if match), "")
    module, _, below = name.partition(".")
    if not module or (below and module != _OURS):
        return None  # what is missing is in a package that was found
    where = image or project.interpreter.path
    if module == _OURS:
        from bundler.system.installed import installed

        what = f"The component imports state-bundler, which is not installed in {where}."
        if image is not None:
            return f"{what} Add it to the dependencies of the project, and build the image again."
        add = how_to_add(project.root, installed().requirement())
        return f"{what} It has no other dependencies at run time. Add it: {add}"
    if image is not None:
        return f"{module} is not installed in {where}. Install it there, and build the image again."
    return f"{module} is not installed in {where}. " + how_to_install(
        project.root, project.interpreter.found_by
    )
