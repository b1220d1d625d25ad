"""Which keys a build would refresh, and what is wrong with them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator

from bundler.doctor import Finding, Patient
from bundler.listener import SILENT
from bundler.sources import Component, Found
from bundler.statedir import sanitize_key
from bundler.tree import fold


def components(patient: Patient) -> Iterator[Finding]:
    """Discovers them, in the project's own interpreter, without asking any external system."""
    from bundler.project import open_project
    from bundler.refresh.run import discover

    project = open_project(patient.survey.root, python=patient.python)
    for found in discover([project], SILENT):
        yield from judge(found)


def judge(found: Found) -> Iterator[Finding]:
    """What is to be said of one source's components."""
    if found.components:
        yield Finding("ok", _summary(found))
    else:
        yield Finding("warn", f"{found.place}: no state-backed component was found.")
    for warning in found.warnings:
        yield Finding("warn", warning)
    yield from _collisions(found.components)
    for component in {item.key: item for item in found.components}.values():
        yield from _of_one(component)


def _summary(found: Found) -> str:
    local = [item for item in found.components if item.management_type == "LOCAL_FILESYSTEM"]
    keys = ", ".join(dict.fromkeys(item.key for item in local)) or "none"
    return f"{found.place} would hold: {keys}."


def _collisions(found: Iterable[Component]) -> Iterator[Finding]:
    """Different keys whose states would lie in the same folder."""
    folders: dict[str, set[str]] = defaultdict(set)
    for component in found:
        if component.management_type == "LOCAL_FILESYSTEM":
            folders[fold(sanitize_key(component.key))].add(component.key)
    for keys in folders.values():
        if len(keys) > 1:
            yield Finding(
                "fail",
                f"The keys {' and '.join(sorted(map(repr, keys)))} share one folder.",
                "One state would overwrite the other, and assets come from the wrong source.",
                "Give one of them another key: attributes.defs_state.key in its defs.yaml",
            )


def _of_one(component: Component) -> Iterator[Finding]:
    where = f"{component.key} ({component.location})" if component.location else component.key
    if component.management_type == "LEGACY_CODE_SERVER_SNAPSHOTS":
        yield Finding(
            "warn",
            f"{where} is LEGACY_CODE_SERVER_SNAPSHOTS.",
            "It is refreshed at every load: an outage of its system breaks the load itself, and "
            "no build can prevent that.",
            "defs.yaml: defs_state: {management_type: LOCAL_FILESYSTEM}",
        )
    if component.key_variables:
        yield Finding(
            "warn",
            f"{where}: its key is made of {', '.join(component.key_variables)}.",
            "With another value the key is another one, and the state in the artifact is not "
            "found.",
            "defs.yaml: defs_state: {key: a fixed name, management_type: …}",
        )
    unset = [name for name in component.environment_variables if name not in os.environ]
    if unset and component.management_type == "LOCAL_FILESYSTEM":
        yield Finding(
            "warn",
            f"{where} reads {', '.join(unset)}, not set here.",
            "The refresh is likely to fail.",
            f"Set them, or put them into .env: {' '.join(f'{name}=…' for name in unset)}",
        )
