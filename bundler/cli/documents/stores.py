"""The documents of the commands of ``state-bundler store``."""

from __future__ import annotations

from typing import Literal

import msgspec

from bundler.cli.documents import Document, DocumentPart, Pushed
from bundler.store.records import Change, Version


class StoreMove(DocumentPart, frozen=True):
    """before, after: versions; null for none."""

    key: str
    before: str | None
    after: str | None


class StoreVersion(DocumentPart, frozen=True):
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


class StoreList(Document, frozen=True, kw_only=True):
    store: str
    set: int | msgspec.UnsetType | None = msgspec.UNSET
    keys: list[StoreVersion]


class StoreSets(Document, frozen=True):
    store: str
    sets: list[Change]


class StoreShow(Version, DocumentPart, frozen=True, kw_only=True):
    schema_version: Literal[2]


class StoreVerify(Document, frozen=True):
    store: str
    versions: int
    size: int
    problems: list[str]


class StorePush(Pushed, frozen=True):
    schema_version: Literal[2]


class StoreSet(Document, frozen=True):
    number: int = msgspec.field(name="set")
    made: str
    moves: list[StoreMove]


class PrunedVersion(DocumentPart, frozen=True):
    key: str
    version: str
    made: str


class StorePrune(Document, frozen=True):
    dry_run: bool
    size: int
    leftovers: list[str]
    versions: list[PrunedVersion]


class StorePin(DocumentPart, frozen=True):
    key: str
    version: str
    note: str


class StorePins(Document, frozen=True):
    store: str
    pins: list[StorePin]


class StoreCopy(Document, frozen=True):
    store: str
    number: int = msgspec.field(name="set")
    versions: list[str]
    size: int


class ImportedKey(DocumentPart, frozen=True):
    key: str
    versions: list[str]


class StoreImport(Document, frozen=True):
    keys: list[ImportedKey]
    not_imported: list[str]
