"""dbt's models as assets in the classic way: by a manifest that is there when the code loads."""

from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets

HERE = Path(__file__).parent
PARSED = HERE / "dbt_state" / "orders" / "state"


@dbt_assets(manifest=PARSED / "manifest.json")
def orders(context: dg.AssetExecutionContext, dbt: DbtCliResource):
    yield from dbt.cli(["build"], context=context).stream()


@dg.definitions
def defs() -> dg.Definitions:
    dbt = DbtCliResource(project_dir=HERE.parent / "orders")
    return dg.Definitions(assets=[orders], resources={"dbt": dbt})
