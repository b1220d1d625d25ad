"""Names that people give to artifacts, taken apart."""

from __future__ import annotations

from pathlib import Path


def split_layout(reference: str) -> tuple[Path, str | None]:
    """``oci:DIR:TAG``, ``DIR:TAG`` or ``DIR``; a path that exists is one, colons and all."""
    name = reference.removeprefix("oci:")
    directory, colon, tag = name.rpartition(":")
    if not colon or Path(name).exists() or "/" in tag:
        return Path(name), None
    return Path(directory), tag
