import os
from pathlib import Path

import dagster as dg

from bundler.dagster_job import refresh_definitions

ROOT = Path(__file__).parents[2]


@dg.definitions
def defs():
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        refresh_definitions(
            ROOT,
            cron_schedule="0 * * * *",
            location=os.environ.get("SHOP_LOCATION"),
            webserver=os.environ.get("SHOP_WEBSERVER", "localhost:3000"),
            executor=dg.in_process_executor if os.environ.get("SHOP_IN_PROCESS") else None,
        ),
    )
