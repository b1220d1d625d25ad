"""The components of projects for what only reports: known from before, or else asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bundler.refresh.discovery_cache import CacheQuery, recall
from bundler.refresh.model import Found, warnings_of
from bundler.refresh.sources import sources_of

if TYPE_CHECKING:
    from bundler.listener import Listener
    from bundler.project.projects import Project


def discover(
    projects: Sequence[Project], listener: Listener, *, is_cached: bool
) -> tuple[Found, ...]:
    """What the sources of the projects have; like `bundler.refresh.run.discover`.

    is_cached: whether an earlier answer may be used, and this one be kept.
    """
    found = recalled(projects) if is_cached else None
    if found is None:
        from bundler.refresh import run

        return run.discover(projects, listener, keeps=is_cached)
    for warning in warnings_of(found):
        listener.warning(warning)
    return found


def recalled(projects: Sequence[Project]) -> tuple[Found, ...] | None:
    """What is known of all sources; None if any of them has to be asked."""
    found = []
    for project in projects:
        for source in sources_of(project):
            known = recall(CacheQuery.of(source))
            if known is None:
                return None
            found.append(known)
    return tuple(found)
