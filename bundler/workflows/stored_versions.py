"""Whether a build or a plan asks the projects' stores for versions, see `store_build`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from bundler.project.config import STORE_VARIABLE
from bundler.project.options import RefreshOptions
from bundler.project.projects import Project


def with_stored(
    options: RefreshOptions,
    projects: Sequence[Project],
    *,
    pins: bool | None = None,
    embeds: bool = False,
) -> RefreshOptions:
    """The options with the projects' stores, which are only used for versioned keys.

    pins: whether the manifest names versions; None if a store is configured. embeds: whether their
    states are embedded. A project without a store has no versions, unless the options require them.
    """
    needed = embeds or bool(pins)
    storing = [
        project
        for project in projects
        if needed or (pins is None and (os.environ.get(STORE_VARIABLE) or project.config.store))
    ]
    if not storing:
        return options
    from bundler.store.configured import open_configured
    from bundler.workflows.store_build import CurrentVersions

    stores = {store.url: store for store in (open_configured(None, it.root) for it in storing)}
    stored = CurrentVersions(tuple(stores.values()), embeds, needed)
    return msgspec.structs.replace(options, stored=stored)
