"""Where states come from: `dagster`, or what the configuration names (`component`).

A *source* belongs to one project and one state directory. It yields *components*, and it can
write the state of one of them to a path, in a process that can be killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bundler.refresh.model import Source

if TYPE_CHECKING:
    from bundler.errors import BundlerError
    from bundler.project.projects import Project
    from bundler.refresh.outcome.exchanges import Link
    from bundler.refresh.secrets import Secrets


def load_error(
    source: Source, chain: Sequence[Link], secrets: Secrets, image: str | None = None
) -> BundlerError:
    """Why a source could not list its components. image: the one that it was loaded in."""
    from bundler.refresh.sources import component, dagster

    if source.kind == "dagster":
        return dagster.load_error(source, chain, secrets, image)
    return component.load_error(source, chain, secrets, image)


def sources_of(project: Project) -> tuple[Source, ...]:
    """The sources of a project, Dagster's first."""
    from bundler.refresh.sources import component, dagster

    return (*dagster.sources(project), *component.sources(project))
