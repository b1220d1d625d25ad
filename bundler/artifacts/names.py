"""Names that people give to artifacts, taken apart."""

from __future__ import annotations

import re
from pathlib import Path

# What may stand before a name, and says where the artifact is.
ENGINE = "docker-daemon:"
LAYOUT = "oci:"
REGISTRY = "docker://"
# What an update adds to a tag: the beginning of the content digest.
STATE_DIGITS = 12
_STATE_TAG = re.compile(rf"(.+)-s[0-9a-f]{{{STATE_DIGITS}}}")


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


def without_state(tag: str) -> str:
    """``1.4`` of ``1.4-s0123456789ab``, the tag that an update gives; others as they are."""
    updated = _STATE_TAG.fullmatch(tag)
    return updated[1] if updated else tag
