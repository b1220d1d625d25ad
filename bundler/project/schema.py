"""The JSON schemas of what this package writes and reads, generated from its models.

``python -m bundler.project.schema`` writes them to ``bundler/project/schemas``, and a test compares
the files with the models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "schemas"
CONFIGURATION = "configuration.schema.json"
_BASE = "https://state-bundler.io/schemas"


def generated() -> dict[str, dict[str, Any]]:
    """Every schema by its file's name, from the current models."""
    import msgspec

    from bundler.project import config
    from bundler.state import manifest

    schemas = {
        "manifest.schema.json": manifest.json_schema(),
        "run-record.schema.json": msgspec.json.schema(manifest.RunRecord),
        CONFIGURATION: config.json_schema(),
    }
    return {
        name: {"$schema": _draft(name), "$id": f"{_BASE}/{name}", **in_order(schema)}
        for name, schema in schemas.items()
    }


def in_order(part: Any) -> Any:
    """The types with ``null`` last: msgspec's versions differ in their order."""
    if isinstance(part, list):
        return [in_order(item) for item in part]
    if not isinstance(part, dict):
        return part
    ordered = {name: in_order(value) for name, value in part.items()}
    if "anyOf" in ordered:
        ordered["anyOf"].sort(key=lambda kind: kind == {"type": "null"})
    return ordered


def _draft(name: str) -> str:
    # validate-pyproject supports nothing newer; the models use nothing that it lacks.
    if name == CONFIGURATION:
        return "http://json-schema.org/draft-07/schema#"
    return "https://json-schema.org/draft/2020-12/schema"


def render(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def tool_schema(_: str) -> dict[str, Any]:
    """The schema of ``[tool.state-bundler]``, for validate-pyproject."""
    schema: dict[str, Any] = json.loads((FOLDER / CONFIGURATION).read_text())
    return schema


def main() -> None:
    for name, schema in generated().items():
        (FOLDER / name).write_text(render(schema))


if __name__ == "__main__":
    main()
