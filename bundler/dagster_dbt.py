"""dbt's state in versioned storage: new models reach production without a new image.

`DbtProjectComponent` keeps its state in the artifact, whatever its YAML says: its
`defs_state_config` is ``LOCAL_FILESYSTEM``. Dagster also removes the directory into which it has
downloaded a versioned state as soon as the definitions are made, and dbt runs in it later. So::

    type: bundler.dagster_dbt.StoredDbtProject
    attributes:
      project: "{{ project_root }}/warehouse"

is the same component with ``VERSIONED_STATE_STORAGE``, and keeps the downloaded project until the
process ends. The storage has to take directories, as `bundler.dagster_storage` does. Imports
dagster_dbt.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs
from dagster_dbt import DbtProjectComponent


@dataclass
class StoredDbtProject(DbtProjectComponent):
    """A dbt project whose state is in versioned storage."""

    @property
    def defs_state_config(self) -> DefsStateConfig:
        own = super().defs_state_config
        stored = DefsStateConfigArgs.versioned_state_storage()
        stored.refresh_if_dev = own.refresh_if_dev
        return DefsStateConfig.from_args(stored, default_key=own.key)

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        kept = None if state_path is None else _kept(state_path)
        return super().build_defs_from_state(context, kept)


def _kept(state_path: Path) -> Path:
    """The state in a directory that is kept until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="state-bundler-dbt-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(state_path.parent, folder, dirs_exist_ok=True)
    return folder / state_path.name
