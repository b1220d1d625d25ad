"""Two components in versioned storage: a file, and a directory next to an empty marker."""

import json
import os
from pathlib import Path

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig


class _Versioned(dg.StateBackedComponent, dg.Model, dg.Resolvable):
    name: str
    defs_state: ResolvedDefsStateConfig = DefsStateConfigArgs(
        management_type="VERSIONED_STATE_STORAGE", refresh_if_dev=False
    )

    @property
    def defs_state_config(self) -> DefsStateConfig:
        return DefsStateConfig.from_args(
            self.defs_state, default_key=f"{type(self).__name__}[{self.name}]"
        )

    def assets(self, names: list[str]) -> dg.Definitions:
        return dg.Definitions(assets=[dg.AssetSpec(f"{self.name}_{name}") for name in names])


class FileComponent(_Versioned):
    def write_state_to_path(self, state_path: Path) -> None:
        state_path.write_text(json.dumps(os.environ["SHOP_TABLES"].split(",")))

    def build_defs_from_state(self, context, state_path):
        return self.assets(json.loads(state_path.read_text()) if state_path else [])


class FolderComponent(_Versioned):
    async def write_state_to_path(self, state_path: Path) -> None:
        state_path.mkdir()
        for table in os.environ["SHOP_TABLES"].split(","):
            (state_path / table).write_text(table)
        beside = state_path.parent / "project" / "manifest.json"
        beside.parent.mkdir()
        beside.write_text("{}")

    def build_defs_from_state(self, context, state_path):
        if state_path is None:
            return self.assets([])
        assert (state_path.parent / "project" / "manifest.json").read_text() == "{}"
        return self.assets(sorted(path.name for path in state_path.iterdir()))
