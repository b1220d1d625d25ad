import dagster as dg


@dg.asset
def marts() -> int:
    return 1


defs = dg.Definitions(assets=[marts])
