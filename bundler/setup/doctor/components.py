"""Checks the keys that a build would refresh."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bundler.errors import BundlerError, ConfigurationError
from bundler.project.classic_dbt import classic_dbt
from bundler.project.classic_vendors import advice_on_vendors
from bundler.project.environment_tools import how_to_add, how_to_install
from bundler.refresh.keys import unique, unused_tables
from bundler.refresh.model import Component, Found
from bundler.refresh.vendors import kind_of
from bundler.setup.doctor import DoctorContext, Finding
from bundler.setup.doctor.printed import in_directory
from bundler.setup.init.pyproject import dbt_table
from bundler.state.statedir import StateDir, check_keys, sanitize_key
from bundler.state.tree import fold
from bundler.system.wording import counted

_SCAFFOLD = "Add one with dg scaffold defs; dg list components lists the existing ones."


def components(patient: DoctorContext) -> Iterator[Finding]:
    for found in patient.looked().found:
        for finding in judge(found):
            is_advice = finding.is_stateless and finding.fix
            yield replace(finding, fix=how_to_get_state(patient)) if is_advice else finding
        yield from _without_dbt(found, patient)
    keys = {item.key for found in patient.looked().found for item in found.components}
    for message in unused_tables(patient.project.config, keys):
        yield Finding("warn", message)
    yield from _without_program(patient)


def how_to_get_state(patient: DoctorContext) -> str:
    """The advice for a project without a state-backed component."""
    root = patient.survey.root
    if said := advice_on_vendors(root):
        return said
    found = classic_dbt(root)
    if found is None or found.home != root or patient.survey.dagster is None:
        return _SCAFFOLD
    code = found.code.relative_to(root).as_posix()
    return (
        f"{code} loads dbt's models from a manifest: make it a "
        "dagster_dbt.DbtProjectComponent, or add a source to pyproject.toml:\n"
        f"{dbt_table(found, root)}"
    ).rstrip()


def _without_program(patient: DoctorContext) -> Iterator[Finding]:
    """The sources whose command cannot be started."""
    project = patient.project
    python = project.interpreter
    path = os.pathsep.join([str(python.path.parent), os.environ.get("PATH", os.defpath)])
    programs = {
        source.command[0]: source.key for source in project.config.sources if source.command
    }
    for program, key in programs.items():
        named = str(project.root / program) if "/" in program else program
        if shutil.which(named, path=path) is None:
            yield Finding(
                "fail",
                f"{key} runs {program}, which was not found.",
                f"A refresh looks for it next to {python.path}, then on PATH.",
                f"Put {program} on PATH. If the project depends on it: "
                f"{how_to_install(project.root, python.found_by)}",
            )


def _without_dbt(found: Found, patient: DoctorContext) -> Iterator[Finding]:
    uses = [one for one in found.components if kind_of(one).runs_dbt]
    fusion = patient.project.interpreter.path.with_name("dbtf")
    if uses and not (patient.installed["dbt-core"] or fusion.exists()):
        root = patient.survey.root
        yield Finding(
            "fail",
            f"{uses[0].key} runs dbt, which is not installed.",
            "A DbtProjectComponent runs dbt to create its state.",
            in_directory(how_to_add(root, "dbt-core<1.12"), root),
        )


def judge(found: Found) -> Iterator[Finding]:
    if found.components:
        yield Finding("ok", _summary(found))
    else:
        yield Finding(
            "warn",
            f"There is no state-backed component, so {found.place} has no state.",
            "A build would embed nothing in the artifact.",
            _SCAFFOLD,
            is_stateless=True,
        )
    for warning in (*found.warnings, *(it.warning for it in found.components if it.warning)):
        yield Finding("warn", warning)
    yield from _rejected(found.components)
    yield from _collisions(found.components)
    yield from _left_over(found)
    yield from _in_development(found)
    for component in {item.key: item for item in found.components}.values():
        if component.refused is None:
            yield from _of_one(component)


def _summary(found: Found) -> str:
    local = [
        item
        for item in found.components
        if item.management_type == "LOCAL_FILESYSTEM" and item.refused is None
    ]
    keys = ", ".join(dict.fromkeys(item.key for item in local)) or "none"
    return f"{found.place} will contain: {keys}."


def _rejected(found: Sequence[Component]) -> Iterator[Finding]:
    """Keys with a credential, keys whose directory has another name, and keys that are incomplete
    or that differing components share."""
    why = "A refresh rejects it."
    for component in {item.key: item for item in found}.values():
        if (refused := component.refused) is not None:
            yield Finding("fail", refused.what, why, refused.hint, where=_place(component))
    for component in found:
        try:
            check_keys([component.key])
        except ConfigurationError as error:
            outside = "Dagster would write it next to the state directory, or into its root."
            yield Finding("fail", error.what, outside, error.hint, where=_place(component))
    try:
        unique([component for component in found if component.refused is None])
    except BundlerError as error:
        yield Finding("fail", error.what, why, error.hint)


def _left_over(found: Found) -> Iterator[Finding]:
    """Directories of keys without any component; Dagster ships them."""
    known = {sanitize_key(component.key) for component in found.components}
    if not found.directory.is_dir() or not found.components:
        return
    names = {
        path.name
        for path in found.directory.iterdir()
        if path.is_dir() and not path.name.startswith("@") and path.name not in known
    }
    published = StateDir(found.directory, found.place).read()
    ours = {state.path for state in published.manifest.states} if published else set()
    advice = {
        "Run state-bundler refresh: it removes published keys that no component has.": (
            names & ours
        ),
        "Remove it or move it elsewhere: state-bundler leaves what it did not publish.": (
            names - ours
        ),
    }
    for fix, some in advice.items():
        if some:
            yield Finding(
                "warn",
                f"{found.place} contains {', '.join(sorted(some))}, which no component has.",
                "It would ship with any other build tool, probably unintentionally.",
                fix,
            )


def _in_development(found: Found) -> Iterator[Finding]:
    """Components that fetch at every load on a developer's machine, replacing what was
    refreshed."""
    keys = [
        item.key
        for item in found.components
        if item.refresh_if_dev and item.management_type == "LOCAL_FILESYSTEM"
    ]
    if keys and found.version.startswith("dagster"):
        yield Finding(
            "ok",
            f"In development, every load fetches {counted(len(set(keys)), 'key')}.",
            "`dg list defs` and `dg check defs` then call the APIs and overwrite what a refresh "
            "published. A build always refreshes.",
            "Set refresh_if_dev to false: in attributes.defs_state of its defs.yaml, or, if the "
            "component has no such attribute, in its defs_state_config.",
        )


def _collisions(found: Iterable[Component]) -> Iterator[Finding]:
    """Different keys whose states would be in the same folder."""
    folders: dict[str, set[str]] = defaultdict(set)
    for component in found:
        if component.management_type == "LOCAL_FILESYSTEM":
            folders[fold(sanitize_key(component.key))].add(component.key)
    for keys in folders.values():
        if len(keys) > 1:
            yield Finding(
                "fail",
                f"The keys {' and '.join(sorted(map(repr, keys)))} share one folder.",
                "One state would overwrite the other, and assets would come from the wrong source.",
                "Give one of them another key: set attributes.defs_state.key in its defs.yaml.",
            )


def _place(component: Component) -> str:
    """``file:line``, relative to the project; empty if unknown."""
    return f"{component.location}:{component.line}" if component.line else component.location


def _of_one(component: Component) -> Iterator[Finding]:
    place = _place(component)
    named = f"{component.key} ({place})" if place else component.key
    if component.management_type == "LEGACY_CODE_SERVER_SNAPSHOTS":
        yield Finding(
            "warn",
            f"{named} is LEGACY_CODE_SERVER_SNAPSHOTS.",
            "It is refreshed on every load: an outage of its system breaks the load, and "
            "no build can prevent that.",
            "Set attributes.defs_state.management_type to LOCAL_FILESYSTEM in its defs.yaml.",
            where=place,
        )
    if component.unread:
        yield Finding(
            "warn",
            f"{named} seems to ignore its state: {component.unread}.",
            "Its definitions then do not come from the embedded state. This is a guess by the "
            "source code alone.",
            "Read the state from that path there; if another function does, ignore this.",
            where=place,
        )
    if component.key_variables:
        yield Finding(
            "warn",
            f"{named}: its key contains the value of {', '.join(component.key_variables)}.",
            "With another value, the key changes, and the state in the artifact is not found.",
            "Set attributes.defs_state.key to a fixed name in its defs.yaml.",
            where=place,
        )
