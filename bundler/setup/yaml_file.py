"""Reads YAML files that others have written, for what they declare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundler.system.reading import scanned


def load(file: Path) -> Mapping[str, Any]:
    """A file's mapping; empty for anything else. Raises `ValueError` with why it cannot be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        # With the tags of Compose, such as `!override`.
        document = YAML(typ="rt", pure=True).load(scanned(file))
    except YAMLError as error:
        raise ValueError(str(getattr(error, "problem", None) or "it is not YAML")) from error
    return document if isinstance(document, Mapping) else {}
