"""What a refresh would do with each key, without calling an external system."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.refresh.directories import LOCAL, Directory
from bundler.refresh.discovery import loaded_sources
from bundler.refresh.model import Component
from bundler.refresh.reporting import declared_at
from bundler.refresh.run import check_selection, directories_of, run_to_end
from bundler.state.manifest import ManagementType

if TYPE_CHECKING:
    from bundler.project.projects import Project

Action = Literal["fetch", "keep", "skip"]


class PlannedKey(msgspec.Struct, frozen=True, rename="camel"):
    """action: ``skip`` for a key that is not selected or not kept in the artifact. declared: the
    file and line that declare its component; empty if unknown."""

    key: str
    management_type: ManagementType
    action: Action
    declared: str


def preview(
    projects: Sequence[Project], options: RefreshOptions, listener: Listener
) -> tuple[PlannedKey, ...]:
    """What would happen to each key. Raises as a refresh does in its checks before fetching."""

    async def work(_: asyncio.Event) -> tuple[PlannedKey, ...]:
        listener.phase("Finding components")
        async with loaded_sources(projects, options, listener) as (loaded, _scratch):
            directories = directories_of(loaded, options, listener)
            check_selection(options, directories)
            for directory in directories:
                await directory.read_baselines(directory.statedir)
            return tuple(key for directory in directories for key in _planned(directory))

    return run_to_end(work)


def _planned(directory: Directory) -> Iterator[PlannedKey]:
    for component in directory.components.values():
        yield PlannedKey(
            component.key,
            component.management_type,
            _action(directory, component),
            declared_at(directory.source_of(component).source, component),
        )


def _action(directory: Directory, component: Component) -> Action:
    if component.management_type != LOCAL or not directory.is_selected(component):
        return "skip"
    return "fetch" if directory.fetches(component.key) else "keep"
