"""Writes the JSON schemas of the documents: ``make docs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bundler.cli import documents
from bundler.cli.documents import changes, stores
from bundler.project.schema import in_order, render

FOLDER = Path(__file__).parents[1] / "schemas"
DOCS = Path("docs/reference/schemas")
_BASE = "https://state-bundler.io/schemas"

# By the name of the schema's file; several commands may print the same document.
DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "build": documents.BuildDocument,
    "build-report": documents.BuildReport,
    "diff": changes.Diff,
    "doctor": documents.Doctor,
    "embed": documents.Embed,
    "updates": documents.Updates,
    "extract": documents.Extract,
    "guard": documents.Guard,
    "init": documents.Init,
    "plan": changes.PlanDocument,
    "refresh": documents.Refresh,
    "refresh-dry-run": changes.RefreshDryRun,
    "shard": documents.ShardDocument,
    "sign": documents.Sign,
    "status": documents.Status,
    "store-copy": stores.StoreCopy,
    "store-import": stores.StoreImport,
    "store-list": stores.StoreList,
    "store-pins": stores.StorePins,
    "store-prune": stores.StorePrune,
    "store-push": stores.StorePush,
    "store-set": stores.StoreSet,
    "store-sets": stores.StoreSets,
    "store-show": stores.StoreShow,
    "store-verify": stores.StoreVerify,
    "verify": documents.Verify,
}


def schema_of(name: str) -> dict[str, Any]:
    schema = msgspec.json.schema(DOCUMENTS[name])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{_BASE}/{name}.schema.json",
        **schema,
    }


def main() -> None:
    for name in DOCUMENTS:
        for folder in (FOLDER, DOCS):
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.schema.json").write_text(render(in_order(schema_of(name))))


if __name__ == "__main__":
    main()
