"""What ``status`` sees, in Dagster's own UI: asset checks and metadata for each embedded state.

In a project's definitions::

    from bundler.dagster_health import state_health

    defs = dg.Definitions.merge(my_defs, state_health(Path(__file__), max_age="24h"))

or as a component, ``type: bundler.dagster_health.StateHealth``. Each embedded state becomes an
external asset ``embedded_state/KEY`` with three checks:

- ``verified``: its files are what the manifest says.
- ``fresh``: it was confirmed within `max_age`.
- ``current``: the baseline (a store, an artifact) holds the same state.

Loading reads the manifest and nothing else; the rest is read when a check runs. Nothing is written,
so a read-only image will do. Imports dagster. Dagster reads the annotations of checks as values, so
they must not become strings: no ``from __future__ import annotations`` here.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from bundler.verify_at_start import MANIFEST, RUN_RECORD, problems, read_regular

if TYPE_CHECKING:
    from bundler.state.manifest import RunRecord

_STATE_DIRECTORY = ".local_defs_state"
_GROUP = "embedded_state"
_NO_NAME = re.compile(r"[^A-Za-z0-9_]+")
_SHOWN = 5
_CHECKS = {
    "verified": "The files of the embedded state are what the manifest says.",
    "fresh": "The state was confirmed by its external system within the maximum age.",
    "current": "The baseline (a store, an artifact) holds the same state.",
}
_UNKNOWN = "unknown: the run record of an image is a label, which a program in it cannot read"


def state_health(
    project: Path, *, max_age: str | None = None, baseline: str | None = None
) -> dg.Definitions:
    """An external asset with checks for each state that is embedded in the project.

    project: the defs module's directory, its state directory, or any file or directory that
    contains it. max_age: such as ``24h``; older states warn. baseline: an artifact or a store that
    should have the same states. Without a state directory there is nothing to check.
    """
    directory = _state_directory(project)
    if directory is None:
        return dg.Definitions()
    states = [
        _JudgedState(_asset_key(index, state["key"]), directory, state, max_age, baseline)
        for index, state in enumerate(_states(directory))
    ]
    return dg.Definitions(
        assets=[state.asset() for state in states],
        asset_checks=[_checks(states)] if states else [],
    )


def _checks(states: list["_JudgedState"]) -> dg.AssetChecksDefinition:
    """The checks of all states, in one definition: each definition slows down the load."""
    specs = [spec for state in states for spec in state.specs()]

    @dg.multi_asset_check(specs=specs, name=_GROUP, can_subset=True)
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        selected = context.selected_asset_check_keys
        for state in states:
            yield from state.results({it.name for it in selected if it.asset_key == state.key})

    return check


class StateHealth(dg.Component, dg.Model, dg.Resolvable):
    """Asset checks for the states that are embedded in this code location."""

    max_age: str | None = None
    baseline: str | None = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        defs = Path(context.component_tree.defs_module_path)
        return state_health(defs, max_age=self.max_age, baseline=self.baseline)


def _state_directory(start: Path) -> Path | None:
    """The directory with a manifest at or below this path, or else next to one of its parents."""
    root = start if start.is_dir() else start.parent
    if (root / MANIFEST).exists():
        return root
    below = (Path(top) / _STATE_DIRECTORY for top, names, _ in os.walk(root) if _take(names))
    return next(below, None)


def _take(names: list[str]) -> bool:
    found = _STATE_DIRECTORY in names
    names[:] = sorted(name for name in names if not name.startswith((".", "__")))
    return found


def _states(directory: Path) -> list[dict[str, Any]]:
    try:
        raw = read_regular(str(directory / MANIFEST))
    except FileNotFoundError:  # Dagster's own refresh wrote it
        return []
    states: list[dict[str, Any]] = json.loads(raw)["predicate"]["contents"]["states"]
    return states


def _asset_key(index: int, key: str) -> dg.AssetKey:
    """Keys that stay distinct for keys of states that differ only in punctuation."""
    return dg.AssetKey([_GROUP, f"{_NO_NAME.sub('_', key).strip('_')}_{index}"])


@dataclass(frozen=True)
class _JudgedState:
    """One state and how to judge it. key: of its asset."""

    key: dg.AssetKey
    directory: Path
    state: Mapping[str, Any]
    max_age: str | None
    baseline: str | None

    def asset(self) -> dg.AssetSpec:
        return dg.AssetSpec(
            self.key,
            group_name=_GROUP,
            kinds={"state"},
            description=f"The state of {self.state['key']} that is embedded in this program.",
            metadata=self._metadata(),
        )

    def _metadata(self) -> dict[str, Any]:
        files = self.state["files"]
        return {
            "key": self.state["key"],
            "digest": self.state["digest"]["dirHash"],
            "version": self.state.get("version", "local"),
            "files": len(files),
            "size": sum(int(file["size"]) for file in files),
        }

    def specs(self) -> Iterator[dg.AssetCheckSpec]:
        for name, description in _CHECKS.items():
            yield dg.AssetCheckSpec(name, asset=self.key, description=description)

    def results(self, names: set[str]) -> Iterator[dg.AssetCheckResult]:
        """The results of the checks with these names."""
        ways = {"verified": self._verified, "fresh": self._fresh, "current": self._current}
        yield from (result() for name, result in ways.items() if name in names)

    def _verified(self) -> dg.AssetCheckResult:
        found = [problem for problem in problems(str(self.directory)) if self._concerns(problem)]
        metadata: dict[str, Any] = {**self._metadata(), **self._entries()}
        if found:
            metadata["problems"] = "\n".join(found[:_SHOWN])
        return self._result("verified", passed=not found, metadata=metadata)

    def _concerns(self, problem: str) -> bool:
        """Whether a problem concerns this state, or the whole directory."""
        others = [state["path"] for state in _states(self.directory)]
        others.remove(self.state["path"])
        return not any(f"{path}/" in problem for path in others)

    def _entries(self) -> dict[str, int]:
        """Empty if the state is too large to count its entries."""
        from bundler.state.json_entries import TooLargeToCountError, entries_in

        state = self.directory / self.state["path"] / "state"
        try:
            with state.open("rb") as stream:
                entries = entries_in(stream)
        except TooLargeToCountError:
            return {}
        except OSError:
            entries = None
        return {"entries": len(self.state["files"]) if entries is None else entries}

    def _fresh(self) -> dg.AssetCheckResult:
        from bundler.project.config import seconds
        from bundler.state.age import age_problem, span
        from bundler.system.times import seconds_of

        now = time.time()
        record = _record(self.directory)
        keys = [it for place in record.refresh for it in place.keys] if record else []
        refresh = next((it for it in keys if it.key == self.state["key"]), None)
        moment = (refresh.confirmed or refresh.fetched) if refresh else None
        limit = None if self.max_age is None else seconds(self.max_age)
        problem = None if limit is None else age_problem(refresh, limit, now)
        age = int(now - seconds_of(moment)) if moment else None
        metadata = {
            "age": "unknown" if age is None else span(age),
            "age in seconds": "unknown" if age is None else age,
            "refreshed": moment or _UNKNOWN,
            "refreshed by": refresh.origin if refresh else "unknown",
            "stale": refresh.stale if refresh else False,
            "commit": (record.build.commit if record else None) or "unknown",
            **({} if problem is None else {"problem": problem}),
        }
        return self._result("fresh", passed=problem is None, metadata=metadata)

    def _current(self) -> dg.AssetCheckResult:
        if self.baseline is None:
            return self._result("current", passed=True, metadata={"baseline": "none is configured"})
        there = _digests_in(self.baseline).get(self.state["key"])
        metadata = {"baseline": self.baseline, "baseline digest": there or "has no such key"}
        is_current = there == self.state["digest"]["dirHash"]
        return self._result("current", passed=is_current, metadata=metadata)

    def _result(self, name: str, *, passed: bool, metadata: dict[str, Any]) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=passed,
            asset_key=self.key,
            check_name=name,
            metadata=metadata,
            severity=dg.AssetCheckSeverity.ERROR
            if name == "verified"
            else dg.AssetCheckSeverity.WARN,
        )


def _record(directory: Path) -> "RunRecord | None":
    """The run record next to the states, or in the PEX that this program runs from."""
    from bundler.artifacts.open import open_artifact
    from bundler.state.directory import StateDirectoryOnDisk
    from bundler.state.manifest import RunRecord, decode_canonical

    raw = StateDirectoryOnDisk(directory, directory.name).read_run_record()
    if raw is not None:
        return decode_canonical(raw, RunRecord, str(directory / RUN_RECORD))
    if "PEX" not in os.environ:
        return None
    with open_artifact(os.environ["PEX"]) as artifact:
        return artifact.run_record()


def _digests_in(name: str) -> dict[str, str]:
    from bundler.artifacts.open import open_artifact

    with open_artifact(name) as artifact:
        return {
            state.key: state.digest.dir_hash
            for manifest in artifact.manifests().values()
            for state in manifest.states
        }
