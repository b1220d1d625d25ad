"""Writes the JSON schemas of the documents: ``make docs``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from bundler.cli import documents
from bundler.cli.documents import changes, stores
from bundler.project.schema import in_order, render

FOLDER = Path(__file__).parents[1] / "schemas"
DOCS = Path("docs/reference/schemas")
_BASE = "https://state-bundler.io/schemas"


def _schema_name(kind: type) -> str:
    """``store-list`` for `StoreList`, ``build`` for `BuildDocument`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__.removesuffix("Document")).lower()


# By the name of the schema's file; several commands may print the same document.
DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    _schema_name(kind): kind
    for module in (documents, changes, stores)
    for kind in vars(module).values()
    if isinstance(kind, type)
    and issubclass(kind, documents.DocumentPart)
    and kind is not documents.Document
    and "schema_version" in kind.__struct_fields__
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
