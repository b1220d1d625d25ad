"""Vendors' assets without a component: functions that ask an API whenever the code is loaded.

Detected only by the text of the files.
"""

from __future__ import annotations

import re
from pathlib import Path

from bundler.project.classic_dbt import files, start_of

_COMPONENTS = {
    "airbyte": "dagster_airbyte.AirbyteWorkspaceComponent",
    "dbt_cloud": "dagster_dbt.DbtCloudComponent",
    "fivetran": "dagster_fivetran.FivetranAccountComponent",
    "looker": "dagster_looker.LookerComponent",
    "powerbi": "dagster_powerbi.PowerBIWorkspaceComponent",
    "sigma": "dagster_sigma.SigmaComponent",
    "tableau": "dagster_tableau.TableauComponent",
}
_VENDOR = "|".join(_COMPONENTS)
_CALL = re.compile(
    rf"\b(?P<name>load_(?P<loaded>{_VENDOR})(?:_cloud)?_asset_specs"
    rf"|build_(?P<built>{_VENDOR})_assets_definitions|(?<=@)(?P<decorator>{_VENDOR})_assets)\("
)


def advice_on_vendors(root: Path) -> str:
    """How the first vendor that the code asks becomes state; empty if it asks none."""
    for path in files(root):
        found = _CALL.search(start_of(path)) if path.suffix == ".py" else None
        if found is not None:
            component = _COMPONENTS[found["loaded"] or found["built"] or found["decorator"]]
            return (
                f"{path.relative_to(root).as_posix()} calls {found['name']}, which asks the "
                "vendor's API at every load: during an outage the code does not load. Replace the "
                f"call with the component {component}, which keeps the answer as state."
            )
    return ""
