"""``state-bundler refresh`` of selected projects; `export` and `store_refresh` do more with it."""

from __future__ import annotations

from bundler.listener import Listener
from bundler.project.options import RefreshOptions
from bundler.project.selection import Selection
from bundler.refresh import run
from bundler.refresh.run import PlannedKey, Refreshed


def refresh(selection: Selection, options: RefreshOptions, listener: Listener) -> Refreshed:
    return run.refresh(selection.find(listener), options, listener)


def preview(
    selection: Selection, options: RefreshOptions, listener: Listener
) -> tuple[PlannedKey, ...]:
    return run.preview(selection.find(listener), options, listener)
