import dagster as dg


@dg.asset
def repository() -> int:
    return 1


defs = dg.Definitions(assets=[repository])
