"""Names that people give to artifacts, taken apart."""

from __future__ import annotations

from pathlib import Path

# What may stand before a name, and says where the artifact is.
ENGINE = "docker-daemon:"
LAYOUT = "oci:"
REGISTRY = "docker://"


def split_layout(reference: str) -> tuple[Path, str | None]:
    """``oci:DIR:TAG``, ``oci://DIR:TAG``, ``DIR:TAG`` or ``DIR``.

    A path that exists is one, colons and all.
    """
    name = reference
    if name.startswith(LAYOUT):
        name = name.removeprefix(LAYOUT).removeprefix("//")
    directory, colon, tag = name.rpartition(":")
    if not colon or Path(name).exists() or "/" in tag:
        return Path(name), None
    return Path(directory), tag
