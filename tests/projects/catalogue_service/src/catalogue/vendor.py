"""The vendor's catalogue, baked in at build time: the service answers while the vendor is down."""

import json
import os
import urllib.request
from pathlib import Path

from bundler.component import DefsStateConfig, LoadContext, StateBackedComponent


class Catalogue(StateBackedComponent[dict[str, dict]]):
    @property
    def defs_state_config(self) -> DefsStateConfig:
        return DefsStateConfig.of(self, "products")

    def write_state_to_path(self, state_path: Path) -> None:
        products = []
        page = 1
        while page is not None:
            request = urllib.request.Request(
                f"{os.environ['SHOP_API_URL']}/v1/products?page={page}",
                headers={"Authorization": f"Bearer {os.environ['SHOP_API_TOKEN']}"},
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                body = json.load(answer)
            products += body["items"]
            page = body["next"]
        state_path.write_text(json.dumps(products))

    def build_defs_from_state(
        self, context: LoadContext, state_path: Path | None
    ) -> dict[str, dict]:
        if state_path is None:
            return {}
        return {product["id"]: product for product in json.loads(state_path.read_text())}
