"""The JSON documents that commands print, as models.

`bundler.cli.documents.schemas` writes their JSON schemas. A test compares what every command prints
with its schema.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from bundler.cli.console import as_json
from bundler.state.manifest import KeyRefresh, ManagementType, Manifest
from bundler.version import SCHEMA_VERSION

if TYPE_CHECKING:
    from typing_extensions import Self


class DocumentPart(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    @classmethod
    def of(cls, source: object, **others: Any) -> Self:
        """The attributes that the source has by the same names, and others.

        Values in them become parts of this document in the same way.
        """
        given = {}
        for name, encoded in zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True):
            value = others[name] if name in others else getattr(source, name, msgspec.UNSET)
            if value is not msgspec.UNSET:
                given[encoded] = value
        return msgspec.convert(given, cls, from_attributes=True)


class Document(DocumentPart, frozen=True, kw_only=True):
    """schema_version: of every document; new members do not change it, other changes do."""

    schema_version: Literal[2]


def print_document(kind: type[DocumentPart], source: object = None, **members: Any) -> None:
    """Prints a command's result as JSON on stdout. source and members: see `DocumentPart.of`."""
    sys.stdout.write(as_json(_built(kind, source, members)) + "\n")
    sys.stdout.flush()


def as_text(kind: type[DocumentPart], source: object = None, **members: Any) -> str:
    """The same document as indented JSON, for people and for files."""
    return as_json(_built(kind, source, members), indent=2, ensure_ascii=False) + "\n"


def _built(kind: type[DocumentPart], source: object, members: Mapping[str, Any]) -> dict[str, Any]:
    document = kind.of(source, schema_version=SCHEMA_VERSION, **members)
    return {"schemaVersion": SCHEMA_VERSION, **msgspec.to_builtins(document)}


# --- states and artifacts -----------------------------------------------------------------------


class Error(DocumentPart, frozen=True):
    exit_code: int
    what: str


class StatusKey(DocumentPart, frozen=True):
    directory: str
    key: str
    management_type: ManagementType
    size: int | None
    digest: str | None = msgspec.field(name="dirHash")
    version: str | None
    refresh: KeyRefresh | None
    users: tuple[str, ...] = msgspec.field(name="usedBy")
    problem: str | None


class KeyChange(DocumentPart, frozen=True):
    key: str
    kind: str
    summary: str | None


class Since(DocumentPart, frozen=True):
    before: str = msgspec.field(name="baseline")
    unchanged: int
    keys: list[KeyChange]


class BrokenRule(DocumentPart, frozen=True):
    rule: str
    key: str | None
    what: str


class StatusArtifact(DocumentPart, frozen=True):
    name: str
    kind: str
    verified: bool
    digest: str | None
    content_digests: dict[str, str]
    keys: list[StatusKey]
    breaches: list[BrokenRule] | msgspec.UnsetType = msgspec.UNSET
    error: Error | msgspec.UnsetType = msgspec.UNSET
    since: Since | msgspec.UnsetType = msgspec.UNSET


class Status(Document, frozen=True):
    artifacts: list[StatusArtifact]


class CheckedDirectory(DocumentPart, frozen=True):
    path: str
    content_digest: str | None
    keys: list[str]
    problems: list[str]


class Verified(DocumentPart, frozen=True):
    name: str
    kind: str | None
    digest: str | None
    verified: bool
    passed: bool
    signer: str | None
    problems: list[str]
    breaches: list[BrokenRule]
    directories: list[CheckedDirectory]


class Verify(Document, frozen=True):
    artifacts: list[Verified]


class ShippedDirectory(DocumentPart, frozen=True):
    path: str
    content_digest: str
    size: int
    keys: list[str]


def shipped(path: str, manifest: Manifest) -> ShippedDirectory:
    keys = [state.key for state in manifest.states]
    return ShippedDirectory.of(manifest, path=path, keys=keys)


class Extract(Document, frozen=True):
    directories: list[ShippedDirectory]


class Built(DocumentPart, frozen=True):
    artifact: str
    kind: str
    digest: str | None
    loaded: str | None
    directories: list[ShippedDirectory]


class BuildDocument(Document, frozen=True):
    artifacts: list[Built]


class ReportedBuild(DocumentPart, frozen=True):
    name: str
    project: str
    exit_code: int
    seconds: float
    said: list[str]
    why: str
    log: str


class BuildReport(Document, frozen=True):
    builds: list[ReportedBuild]


class Embed(Document, frozen=True):
    changed: bool
    image: str
    digest: str | None


class UpdatedArtifact(DocumentPart, frozen=True, omit_defaults=True):
    artifact: str
    changed: bool
    image: str | None = None
    digest: str | None = None
    error: Error | None = None


class Updates(Document, frozen=True):
    artifacts: list[UpdatedArtifact]


class Sign(Document, frozen=True):
    signature: str


# --- refresh --------------------------------------------------------------------------------------


class RefreshedKey(DocumentPart, frozen=True):
    directory: str
    key: str
    changed: bool
    size: int
    dir_hash: str
    fetched: str | None
    confirmed: str | None
    stale: bool


class PushedVersion(DocumentPart, frozen=True):
    key: str
    version: str
    new: bool


class Pushed(DocumentPart, frozen=True):
    store: str
    number: int = msgspec.field(name="set")
    uploaded: int
    versions: list[PushedVersion]


class WrittenArchive(DocumentPart, frozen=True):
    name: str
    digest: str


class Refresh(Document, frozen=True):
    changed: bool
    content_digests: dict[str, str]
    keys: list[RefreshedKey]
    pushed: Pushed | msgspec.UnsetType = msgspec.UNSET
    written: WrittenArchive | msgspec.UnsetType | None = msgspec.UNSET


class ShardDocument(Document, frozen=True):
    run: str
    shard: int
    count: int
    join: str
    versions: list[str]
    unchanged: dict[str, str]


# --- verdicts about a project ---------------------------------------------------------------------


class ReportedFinding(DocumentPart, frozen=True):
    grade: Literal["fail", "warn"]
    rule: str
    where: str
    what: str
    why: str
    fix: str
    inside: str


class Guard(Document, frozen=True):
    moment: Literal["staged", "build", "push", "receive", "history"]
    failed: bool
    directories: list[str]
    findings: list[ReportedFinding]


class DoctorFinding(DocumentPart, frozen=True):
    grade: Literal["ok", "warn", "fail"]
    what: str
    why: str
    fix: str
    where: str
    fixable: bool


class DoctorCheck(DocumentPart, frozen=True):
    check: str
    findings: list[DoctorFinding]


class DoctorProject(DocumentPart, frozen=True):
    project: str
    checks: list[DoctorCheck]


class Doctor(Document, frozen=True):
    """With one project, `project` and `checks`; with several, `projects`."""

    project: str | msgspec.UnsetType = msgspec.UNSET
    checks: list[DoctorCheck] | msgspec.UnsetType = msgspec.UNSET
    projects: list[DoctorProject] | msgspec.UnsetType = msgspec.UNSET


class InitFile(DocumentPart, frozen=True):
    path: str
    action: Literal["created", "changed", "removed"]
    why: list[str]
    diff: str


class Init(Document, frozen=True):
    """written: whether the files were changed; `init` can be declined."""

    written: bool
    files: list[InitFile]
