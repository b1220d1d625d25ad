import json
import urllib.request
from pathlib import Path

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs


class Catalog(dg.StateBackedComponent, dg.Model, dg.Resolvable):
    """One asset for each table that the vendor lists."""

    url: str

    @property
    def defs_state_config(self) -> DefsStateConfig:
        return DefsStateConfig.from_args(
            DefsStateConfigArgs.local_filesystem(), default_key="Catalog"
        )

    def write_state_to_path(self, state_path: Path) -> None:
        with urllib.request.urlopen(self.url) as answer:
            state_path.write_bytes(answer.read())

    def build_defs_from_state(self, context, state_path):
        tables = json.loads(state_path.read_text()) if state_path else []
        return dg.Definitions(assets=[dg.AssetSpec(table) for table in tables])
