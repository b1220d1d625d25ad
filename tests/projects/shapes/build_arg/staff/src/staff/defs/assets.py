import dagster as dg


@dg.asset
def daily() -> int:
    return 1
