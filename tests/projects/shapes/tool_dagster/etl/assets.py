import dagster as dg


@dg.asset
def trips() -> int:
    return 1
