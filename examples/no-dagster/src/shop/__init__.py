"""A shop whose products come from an external system, fetched when the artifact is built."""

import json
from pathlib import Path

from bundler.component import DefsStateConfig, Load, StateBackedComponent


class Catalogue(StateBackedComponent[list[str]]):
    @property
    def defs_state_config(self) -> DefsStateConfig:
        return DefsStateConfig.of(self, "products")

    def write_state_to_path(self, state_path: Path) -> None:
        products = ["tea", "coffee", "cocoa"]  # a real one would ask a vendor's API
        state_path.write_text(json.dumps(products))

    def build_defs_from_state(self, context, state_path):
        return json.loads(state_path.read_text()) if state_path else []


def products() -> list[str]:
    with Load(Path(__file__).parent / "state") as load:
        return load.build_defs(Catalogue())
