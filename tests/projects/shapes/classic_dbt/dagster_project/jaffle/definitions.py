import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets

from jaffle.project import jaffle_project


@dbt_assets(manifest=jaffle_project.manifest_path)
def models(context: dg.AssetExecutionContext, dbt: DbtCliResource):
    yield from dbt.cli(["build"], context=context).stream()


defs = dg.Definitions(assets=[models], resources={"dbt": DbtCliResource(jaffle_project)})
