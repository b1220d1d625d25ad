import os
import pkgutil
from pathlib import Path

import dagster as dg

from bundler.dagster_job import refresh_definitions

ROOT = Path(__file__).parents[2]


@dg.definitions
def defs():
    names, executor = os.environ.get("SHOP_NAMES"), os.environ.get("SHOP_EXECUTOR")
    io_manager = {"io_manager": dg.FilesystemIOManager(base_dir=names)} if names else {}
    return dg.Definitions.merge(
        dg.Definitions(resources=io_manager),
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        refresh_definitions(
            ROOT,
            cron_schedule="0 * * * *",
            location=os.environ.get("SHOP_LOCATION"),
            webserver=os.environ.get("SHOP_WEBSERVER", "localhost:3000"),
            executor=pkgutil.resolve_name(executor) if executor else None,
        ),
    )
