"""Judges what the new states of a refresh would remove, compared with the baseline's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bundler.errors import BadData, BundlerError, raise_all
from bundler.listener import Listener
from bundler.refresh.definitions import describe_with
from bundler.refresh.directories import Directory
from bundler.refresh.removals import Removal, allowed_keys, allowed_names, refused, removals
from bundler.state.definitions import Definitions


async def refuse_removals(directories: Sequence[Directory], listener: Listener) -> None:
    """Raises `BadData` for each key that would lose more definitions than allowed."""
    failures: list[BundlerError] = []
    for directory in directories:
        before, compared = await _compared(directory, listener)
        gone = directory.vanished()
        failures += refused((*gone, *compared))
        failures += directory.refused_as_shrunk(before)
        directory.allow_removed_keys(allowed_keys(gone), listener)
        for key in directory.refreshes:
            if names := allowed_names(compared, key):
                directory.allow_removed(key, names, listener)
    raise_all(failures)


async def _compared(
    directory: Directory, listener: Listener
) -> tuple[Definitions, tuple[Removal, ...]]:
    """What the states of the baseline define, as far as it was counted, and what each key would no
    longer make."""
    project = directory.dagster_project()
    if project is None or not directory.changes_limited():
        return Definitions({}), ()
    listener.phase("Comparing definitions with those of the baseline")
    before, after = await asyncio.to_thread(
        describe_with, project, directory.before_and_after(), directory.options.inside
    )
    if before.error is not None:
        listener.warning(
            f"max-removed was not checked: {project.name} does not load with the states of the "
            f"baseline: {before.error}"
        )
        return Definitions({}), ()
    if after.error is not None:
        raise BadData(
            f"{project.name} does not load with the new states: {after.error}",
            hint="It loads with those of the baseline: check what the API returns.",
        )
    return before, removals(before, after, directory.options)
