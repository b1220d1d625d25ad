"""The JSON documents that commands print: their models, and the JSON schemas made of them.

The schemas are in ``bundler/cli/schemas`` and in the documentation. ``make docs`` writes them; a
test compares them with the models, and what every command prints with its schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from bundler.artifacts.diff import FileDifference
from bundler.refresh.preview import PlannedKey
from bundler.refresh.removals import Removal
from bundler.state.definitions import DefinitionChange
from bundler.state.manifest import KeyRefresh, ManagementType
from bundler.store.records import Change, Move, Version

FOLDER = Path(__file__).parent / "schemas"
DOCS = Path("docs/reference/schemas")
_BASE = "https://state-bundler.io/schemas"


class _DocumentPart(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
): ...


class _Document(_DocumentPart, frozen=True, kw_only=True):
    """schema_version: of every document; new members do not change it, other changes do."""

    schema_version: Literal[2]


# --- states and artifacts -----------------------------------------------------------------------


class _Error(_DocumentPart, frozen=True):
    exit_code: int
    what: str


class _KeyStatus(_DocumentPart, frozen=True):
    directory: str
    key: str
    management_type: ManagementType
    size: int | None
    dir_hash: str | None
    version: str | None
    refresh: KeyRefresh | None
    used_by: list[str]
    problem: str | None


class _KeyChange(_DocumentPart, frozen=True):
    key: str
    kind: str
    summary: str | None


class _Since(_DocumentPart, frozen=True):
    baseline: str
    unchanged: int
    keys: list[_KeyChange]


class _Breach(_DocumentPart, frozen=True):
    rule: str
    key: str | None
    what: str


class _Holder(_DocumentPart, frozen=True):
    name: str
    kind: str
    verified: bool
    digest: str | None
    content_digests: dict[str, str]
    keys: list[_KeyStatus]
    breaches: list[_Breach] | msgspec.UnsetType = msgspec.UNSET
    error: _Error | msgspec.UnsetType = msgspec.UNSET
    since: _Since | msgspec.UnsetType = msgspec.UNSET


class Status(_Document, frozen=True):
    artifacts: list[_Holder]


class _VerifiedDirectory(_DocumentPart, frozen=True):
    path: str
    content_digest: str | None
    keys: list[str]
    problems: list[str]


class _Verified(_DocumentPart, frozen=True):
    name: str
    kind: str | None
    digest: str | None
    verified: bool
    passed: bool
    signer: str | None
    problems: list[str]
    breaches: list[_Breach]
    directories: list[_VerifiedDirectory]


class Verify(_Document, frozen=True):
    artifacts: list[_Verified]


class _KeyDifference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    kind: str
    before: int | str | None
    after: int | str | None
    files: list[FileDifference]
    summary: str | None


class _Definitions(_DocumentPart, frozen=True):
    differs: bool
    unchanged: int
    changes: list[DefinitionChange]


class Diff(_Document, frozen=True):
    before: str
    after: str
    differs: bool
    unchanged: int
    keys: list[_KeyDifference]
    definitions: _Definitions | msgspec.UnsetType = msgspec.UNSET


class _PlannedBaseline(_DocumentPart, frozen=True):
    name: str
    contents: dict[str, str]
    changes: bool
    states: Diff
    definitions: _Definitions | None
    removals: list[Removal]
    refused: list[str]


class _NotRefreshed(_DocumentPart, frozen=True):
    key: str
    type: str
    version: str | None


class PlanDocument(_Document, frozen=True):
    changes: bool
    contents: dict[str, str]
    not_refreshed: list[_NotRefreshed]
    baselines: list[_PlannedBaseline]
    markdown: str


class _ShippedDirectory(_DocumentPart, frozen=True):
    path: str
    content_digest: str
    size: int
    keys: list[str]


class Extract(_Document, frozen=True):
    directories: list[_ShippedDirectory]


class _Built(_DocumentPart, frozen=True):
    artifact: str
    kind: str
    digest: str | None
    loaded: str | None
    directories: list[_ShippedDirectory]


class BuildDocument(_Document, frozen=True):
    artifacts: list[_Built]


class _ProjectBuild(_DocumentPart, frozen=True):
    name: str
    project: str
    exit_code: int
    seconds: float
    said: list[str]
    why: str
    log: str


class BuildReport(_Document, frozen=True):
    builds: list[_ProjectBuild]


class Embed(_Document, frozen=True):
    changed: bool
    image: str
    digest: str | None


class _UpdatedArtifact(_DocumentPart, frozen=True):
    artifact: str
    changed: bool
    image: str | None = None
    digest: str | None = None
    error: _Error | None = None


class Updates(_Document, frozen=True):
    artifacts: list[_UpdatedArtifact]


class Sign(_Document, frozen=True):
    signature: str


# --- refresh --------------------------------------------------------------------------------------


class _Refreshed(_DocumentPart, frozen=True):
    directory: str
    key: str
    changed: bool
    size: int
    dir_hash: str
    fetched: str | None
    confirmed: str | None
    stale: bool


class _PushedVersion(_DocumentPart, frozen=True):
    key: str
    version: str
    new: bool


class _Pushed(_DocumentPart, frozen=True):
    store: str
    set: int
    uploaded: int
    versions: list[_PushedVersion]


class _Written(_DocumentPart, frozen=True):
    name: str
    digest: str


class Refresh(_Document, frozen=True):
    changed: bool
    content_digests: dict[str, str]
    keys: list[_Refreshed]
    pushed: _Pushed | msgspec.UnsetType = msgspec.UNSET
    written: _Written | msgspec.UnsetType | None = msgspec.UNSET


class RefreshDryRun(_Document, frozen=True):
    keys: list[PlannedKey]


class ShardDocument(_Document, frozen=True):
    run: str
    shard: int
    count: int
    versions: list[str]
    unchanged: dict[str, str]
    join: str


# --- verdicts about a project ---------------------------------------------------------------------


class _GuardFinding(_DocumentPart, frozen=True):
    grade: Literal["fail", "warn"]
    rule: str
    where: str
    what: str
    why: str
    fix: str
    inside: str


class Guard(_Document, frozen=True):
    moment: Literal["staged", "build", "push", "receive", "history"]
    failed: bool
    directories: list[str]
    findings: list[_GuardFinding]


class _DoctorFinding(_DocumentPart, frozen=True):
    grade: Literal["ok", "warn", "fail"]
    what: str
    why: str
    fix: str
    where: str
    fixable: bool


class _Check(_DocumentPart, frozen=True):
    check: str
    findings: list[_DoctorFinding]


class _Examined(_DocumentPart, frozen=True):
    project: str
    checks: list[_Check]


class Doctor(_Document, frozen=True):
    """With one project, `project` and `checks`; with several, `projects`."""

    project: str | msgspec.UnsetType = msgspec.UNSET
    checks: list[_Check] | msgspec.UnsetType = msgspec.UNSET
    projects: list[_Examined] | msgspec.UnsetType = msgspec.UNSET


class _FileChange(_DocumentPart, frozen=True):
    path: str
    action: Literal["created", "changed", "removed"]
    why: list[str]
    diff: str


class Init(_Document, frozen=True):
    """written: whether the files were changed; `init` can be declined."""

    written: bool
    files: list[_FileChange]


# --- the store ------------------------------------------------------------------------------------


class _Listed(_DocumentPart, frozen=True):
    key: str
    version: str
    made: str
    size: int
    dir_hash: str
    by: str
    commit: str | None
    place: str | None
    current: bool
    confirmed: str | None
    pin: str | None


class StoreList(_Document, frozen=True):
    store: str
    keys: list[_Listed]
    set: int | msgspec.UnsetType | None = msgspec.UNSET


class StoreSets(_Document, frozen=True):
    store: str
    sets: list[Change]


class StoreShow(Version, frozen=True, kw_only=True):
    schema_version: Literal[2]


class StoreVerify(_Document, frozen=True):
    store: str
    versions: int
    size: int
    problems: list[str]


class StorePush(_Document, frozen=True):
    store: str
    set: int
    uploaded: int
    versions: list[_PushedVersion]


class StoreSet(_Document, frozen=True):
    set: int
    made: str
    moves: list[Move]


class _Pruned(_DocumentPart, frozen=True):
    key: str
    version: str
    made: str


class StorePrune(_Document, frozen=True):
    dry_run: bool
    size: int
    leftovers: list[str]
    versions: list[_Pruned]


class _Pin(_DocumentPart, frozen=True):
    key: str
    version: str
    note: str


class StorePins(_Document, frozen=True):
    store: str
    pins: list[_Pin]


class StoreCopy(_Document, frozen=True):
    store: str
    set: int
    versions: list[str]
    size: int


class _Imported(_DocumentPart, frozen=True):
    key: str
    versions: list[str]


class StoreImport(_Document, frozen=True):
    keys: list[_Imported]
    not_imported: list[str]


# By the name of the schema's file; several commands may print the same document.
DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "build": BuildDocument,
    "build-report": BuildReport,
    "diff": Diff,
    "doctor": Doctor,
    "embed": Embed,
    "updates": Updates,
    "extract": Extract,
    "guard": Guard,
    "init": Init,
    "plan": PlanDocument,
    "refresh": Refresh,
    "refresh-dry-run": RefreshDryRun,
    "shard": ShardDocument,
    "sign": Sign,
    "status": Status,
    "store-copy": StoreCopy,
    "store-import": StoreImport,
    "store-list": StoreList,
    "store-pins": StorePins,
    "store-prune": StorePrune,
    "store-push": StorePush,
    "store-set": StoreSet,
    "store-sets": StoreSets,
    "store-show": StoreShow,
    "store-verify": StoreVerify,
    "verify": Verify,
}


def schema_of(name: str) -> dict[str, Any]:
    """The JSON schema of a document."""
    schema = msgspec.json.schema(DOCUMENTS[name])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{_BASE}/{name}.schema.json",
        **schema,
    }


def main() -> None:
    from bundler.project.schema import in_order, render

    for name in DOCUMENTS:
        for folder in (FOLDER, DOCS):
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.schema.json").write_text(render(in_order(schema_of(name))))


if __name__ == "__main__":
    main()
