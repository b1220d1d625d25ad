"""The documents of `diff`, `plan` and ``refresh --dry-run``."""

from __future__ import annotations

import msgspec

from bundler.artifacts.diff import FileDifference
from bundler.cli.documents import Document, DocumentPart
from bundler.refresh.removals import Removal
from bundler.refresh.run import PlannedKey
from bundler.state.definitions import DefinitionChange


class DiffKey(DocumentPart, frozen=True):
    key: str
    kind: str
    before: int | str | None
    after: int | str | None
    files: list[FileDifference]
    summary: str | None


class DiffDefinitions(DocumentPart, frozen=True):
    differs: bool
    unchanged: int
    changes: list[DefinitionChange]


class Diff(Document, frozen=True, kw_only=True):
    before: str
    after: str
    differs: bool
    unchanged: int
    keys: list[DiffKey]
    definitions: DiffDefinitions | msgspec.UnsetType = msgspec.UNSET


class PlannedBaseline(DocumentPart, frozen=True):
    name: str
    contents: dict[str, str]
    changes: bool
    states: Diff
    definitions: DiffDefinitions | None
    removals: list[Removal]
    refused: list[str]


class NotRefreshed(DocumentPart, frozen=True):
    key: str
    management_type: str = msgspec.field(name="type")
    version: str | None


class PlanDocument(Document, frozen=True):
    changes: bool
    contents: dict[str, str]
    not_refreshed: list[NotRefreshed]
    baselines: list[PlannedBaseline]
    markdown: str


class RefreshDryRun(Document, frozen=True):
    keys: list[PlannedKey]
