"""A Dagster project's state-backed components."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bundler.errors import BundlerError, ConfigurationError
from bundler.project.environment_tools import how_to_install
from bundler.refresh.model import Source

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.project.projects import Project
    from bundler.refresh.outcome.exchanges import Link
    from bundler.refresh.secrets import Secrets


def sources(project: Project) -> Iterator[Source]:
    """The only source of a Dagster project; empty for any other."""
    if project.dagster is not None:
        yield Source(
            project,
            "dagster",
            project.interpreter.path,
            {
                "root": str(project.root),
                "root_module": project.dagster.root,
                "target": project.dagster.target or f"{project.dagster.root}.definitions",
            },
        )


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


def load_error(
    source: Source, chain: Sequence[Link], secrets: Secrets, image: str | None
) -> BundlerError:
    """Why the component tree did not load."""
    project = source.project
    first = chain[0]
    name = first.type.rpartition(".")[2]
    if name == "TooOldError":
        return ConfigurationError(
            f"{project.name} has Dagster {first.text}, which has no public state-backed "
            "components.",
            hint="Update it to 1.12 or later.",
        )
    if name == "ModuleNotFoundError" and "'dagster'" in first.text:
        error = ConfigurationError(
            no_dagster(source.python, project),
            hint=how_to_install(project.root, project.interpreter.found_by),
        )
        error.why = _why_none_may_be_needed(project)
        return error
    from bundler.refresh.outcome.findings import quoted
    from bundler.refresh.sources.missing import how_to_fix

    return ConfigurationError(
        f"The components of {project.name} cannot be loaded: {quoted(chain[-1], secrets)}.",
        hint=how_to_fix(project, chain, image) or "For the full error, run: dg check defs",
    )
