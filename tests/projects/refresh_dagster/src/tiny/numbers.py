"""A component on plain Dagster, as of 1.12: its state is what TINY_NUMBERS says."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig


@dataclass
class Numbers(dg.StateBackedComponent, dg.Resolvable):
    name: str
    defs_state: ResolvedDefsStateConfig = None

    @property
    def defs_state_config(self) -> DefsStateConfig:
        return DefsStateConfig.from_args(
            self.defs_state or DefsStateConfigArgs.local_filesystem(),
            default_key=f"Numbers[{self.name}]",
        )

    async def write_state_to_path(self, state_path: Path) -> None:
        state_path.write_text(json.dumps(os.environ["TINY_NUMBERS"].split()))

    def build_defs_from_state(self, context, state_path):
        if state_path is None:
            return dg.Definitions()
        numbers = json.loads(state_path.read_text())
        return dg.Definitions(assets=[dg.AssetSpec([self.name, number]) for number in numbers])
