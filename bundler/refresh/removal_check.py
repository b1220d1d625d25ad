"""Judges what the new states of a refresh would remove, compared with the baseline's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from bundler.errors import BadData, BundlerError, raise_all
from bundler.listener import Listener
from bundler.refresh.directories import Directory
from bundler.refresh.removals import (
    Removal,
    allowed_keys,
    allowed_names,
    counterparts,
    counts_assets,
    refused,
    removals,
    vanished,
)
from bundler.state.definitions import Definitions
from bundler.system.wording import counted


async def refuse_removals(directories: Sequence[Directory], listener: Listener) -> None:
    """Raises `BadData` for each key that would lose more definitions than allowed."""
    failures: list[BundlerError] = []
    for directory in directories:
        before, compared, gone = await _compared(directory, listener)
        failures += refused((*gone, *compared))
        # What has shrunk is refused, unless its removed assets are limited and were counted.
        failures += [
            error
            for key, error in directory.shrunk.items()
            if not counts_assets(before, key, directory.options)
        ]
        _record_approved(directory, compared, gone, listener)
    raise_all(failures)


async def _compared(
    directory: Directory, listener: Listener
) -> tuple[Definitions, Sequence[Removal], Sequence[Removal]]:
    """What the states of the baseline define, as far as it was counted; what each key would no
    longer make; the keys that have no component any more, under no other name either."""
    nothing = Definitions({})
    sources = (item.source for item in directory.sources if item.source.kind == "dagster")
    project = next((source.project for source in sources), None)
    if project is None:
        return nothing, (), ()
    options, known = directory.options, directory.baselines
    pairs = counterparts(known, directory.states)
    gone = vanished(known.keys() - directory.components.keys() - {*pairs.values()}, options)
    # Only where a state changes whose removals are limited.
    if not any(
        options.of_key(key).max_removed is not None
        and known[old].state.digest.dir_hash != directory.states[key].digest.dir_hash
        for key, old in pairs.items()
    ):
        return nothing, (), gone
    from bundler.refresh.definitions import describe_with

    listener.phase("Comparing definitions with those of the baseline")
    states = (
        {key: known[old].directory for key, old in pairs.items()},
        directory.key_directories(),
    )
    before, after = await asyncio.to_thread(describe_with, project, states, options.inside)
    if before.error is not None:
        listener.warning(
            f"max-removed was not checked: {project.name} does not load with the states of the "
            f"baseline: {before.error}"
        )
        return nothing, (), gone
    if after.error is not None:
        raise BadData(
            f"{project.name} does not load with the new states: {after.error}",
            hint="It loads with those of the baseline: check what the API returns.",
        )
    return before, removals(before, after, options), gone


def _record_approved(
    directory: Directory,
    compared: Sequence[Removal],
    gone: Sequence[Removal],
    listener: Listener,
) -> None:
    """Records what is removed with approval, despite a limit."""
    directory.removed_keys = allowed_keys(gone)
    for key in directory.removed_keys:
        listener.warning(
            f"{key} is removed with everything that it defines, because --allow-removed allows it."
        )
    for key, refresh in directory.refreshes.items():
        if names := allowed_names(compared, key):
            directory.refreshes[key] = msgspec.structs.replace(refresh, removed=names)
            listener.warning(
                f"{key}: --allow-removed lets {counted(len(names), 'definition')} be removed."
            )
