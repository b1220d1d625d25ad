"""The days on which the shop is open: computed here, no external system."""

import json
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class ShopCalendar(dg.StateBackedComponent, dg.Model, dg.Resolvable):
    """One asset for each weekday of a year on which the shop is open."""

    year: int
    closed: list[str] = ["sunday"]
    defs_state: ResolvedDefsStateConfig = DefsStateConfigArgs.legacy_code_server_snapshots()

    @property
    def defs_state_config(self) -> DefsStateConfig:
        return DefsStateConfig.from_args(self.defs_state, default_key=f"ShopCalendar[{self.year}]")

    def write_state_to_path(self, state_path: Path) -> None:
        state_path.write_text(json.dumps(self._open_days(), sort_keys=True))

    def _open_days(self) -> dict[str, int]:
        """How often each weekday on which the shop is open occurs in the year."""
        first = date(self.year, 1, 1)
        length = (date(self.year + 1, 1, 1) - first).days
        days = [_DAYS[(first + timedelta(days=day)).weekday()] for day in range(length)]
        return {name: days.count(name) for name in _DAYS if name not in self.closed}

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        if state_path is None:
            return dg.Definitions()
        days = json.loads(state_path.read_text())
        return dg.Definitions(
            assets=[
                dg.AssetSpec(
                    ["calendar", name], group_name="calendar", metadata={"occurs": times}
                )
                for name, times in days.items()
            ]
        )
