"""What a refresh would do with each key, without calling an external system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.refresh.declared import declared_at
from bundler.refresh.directories import LOCAL, Directory
from bundler.refresh.model import Component
from bundler.refresh.run import check_selection, directories_of, loaded_sources, run_to_end
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
    return run_to_end(lambda _: _preview(projects, options, listener))


async def _preview(
    projects: Sequence[Project], options: RefreshOptions, listener: Listener
) -> tuple[PlannedKey, ...]:
    listener.phase("Finding components")
    async with loaded_sources(projects, options, listener) as (loaded, _):
        directories = directories_of(loaded, options, listener)
        check_selection(options, directories)
        return tuple([key for directory in directories for key in await _keys(directory)])


async def _keys(directory: Directory) -> list[PlannedKey]:
    await directory.read_baselines(directory.statedir)
    return list(_planned(directory))


def _planned(directory: Directory) -> Iterator[PlannedKey]:
    for component in directory.components.values():
        source = next(it for it in directory.sources if component in it.found.components)
        yield PlannedKey(
            component.key,
            component.management_type,
            _action(directory, component),
            declared_at(source.source, component),
        )


def _action(directory: Directory, component: Component) -> Action:
    if component.management_type != LOCAL or not directory.is_selected(component):
        return "skip"
    mode = directory.options.mode_of(component.key)
    has_state = component.key in directory.baselines
    return "fetch" if mode == "always" or (mode == "missing" and not has_state) else "keep"
