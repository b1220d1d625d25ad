"""What a tree is, byte for byte: contents, kinds, modes, link targets, owners, times."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path


def everything(root: Path, *, but: Collection[Path] = ()) -> dict[str, tuple[object, ...]]:
    """Everything below a folder, but for what is below some paths."""
    found: dict[str, tuple[object, ...]] = {}
    pending = [root]
    while pending:
        path = pending.pop()
        if path in but:
            continue
        status = path.lstat()
        about: tuple[object, ...] = (stat.filemode(status.st_mode), status.st_uid)
        if stat.S_ISDIR(status.st_mode):
            pending += [path / name for name in os.listdir(path)]
        # The time of a directory that holds an exception changes with it.
        holds_exception = any(each.parent == path for each in but)
        about += () if holds_exception else (status.st_mtime_ns,)
        if stat.S_ISLNK(status.st_mode):
            about += (os.readlink(path),)
        elif stat.S_ISREG(status.st_mode):
            about += (path.read_bytes(),)
        found[str(path.relative_to(root))] = about
    return found
