"""A vendor's catalogue: one asset for each of its items."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import requests
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig

Item = dict[str, Any]


class VendorCatalog(dg.StateBackedComponent, dg.Model, dg.Resolvable):
    """The items of one catalogue, as the vendor's API lists them.

    The key names the catalogue and not the API's address, so that it is the same in every
    environment.
    """

    catalog: str
    defs_state: ResolvedDefsStateConfig = DefsStateConfigArgs.local_filesystem()

    @property
    def defs_state_config(self) -> DefsStateConfig:
        return DefsStateConfig.from_args(
            self.defs_state, default_key=f"VendorCatalog[{self.catalog}]"
        )

    def write_state_to_path(self, state_path: Path) -> None:
        items = list(_fetch(os.environ["SHOP_API_URL"], self.catalog))
        state_path.write_text(json.dumps(items, indent=1, sort_keys=True))

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        if state_path is None:
            return dg.Definitions()
        items = json.loads(state_path.read_text())
        return dg.Definitions(assets=[_asset(self.catalog, item) for item in items])


def _fetch(base_url: str, catalog: str) -> Iterator[Item]:
    """Every page, in order; a page that the vendor fails to deliver is an error, not an end."""
    page: int | None = 1
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {os.environ['SHOP_API_TOKEN']}"
        while page is not None:
            answer = session.get(
                f"{base_url}/v1/{catalog}", params={"page": page}, timeout=(5, 10)
            )
            answer.raise_for_status()
            body = answer.json()
            yield from body["items"]
            page = body["next"]


def _asset(catalog: str, item: Item) -> dg.AssetsDefinition:
    name = re.sub(r"\W", "_", item["id"])

    @dg.asset(
        key=[catalog, name],
        group_name=catalog,
        description=item["name"],
        metadata={name: value for name, value in item.items() if name not in {"id", "name"}},
    )
    def one_item() -> None: ...

    return one_item
