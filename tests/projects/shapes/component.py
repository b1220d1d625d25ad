"""A state-backed component: its state is what WAREHOUSE_TABLES says."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig


@dataclass
class Tables(dg.StateBackedComponent, dg.Resolvable):
    schema: str
    defs_state: ResolvedDefsStateConfig = None

    @property
    def defs_state_config(self) -> DefsStateConfig:
        return DefsStateConfig.from_args(
            self.defs_state or DefsStateConfigArgs.local_filesystem(),
            default_key=f"Tables[{self.schema}]",
        )

    async def write_state_to_path(self, state_path: Path) -> None:
        state_path.write_text(json.dumps(os.environ["WAREHOUSE_TABLES"].split()))

    def build_defs_from_state(self, context, state_path):
        if state_path is None:
            return dg.Definitions()
        tables = json.loads(state_path.read_text())
        return dg.Definitions(assets=[dg.AssetSpec([self.schema, table]) for table in tables])
