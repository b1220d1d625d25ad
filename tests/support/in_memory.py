"""A folder in memory where there is room: what is written there does not have to last.

On a disk, the flushes of a publish or of an embedding take most of the time of a test that repeats
them a hundred times.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = Path("/dev/shm")
# A container has 64 MB, unless it asked for more.
_ENOUGH_BYTES = 256 * 2**20


@contextmanager
def in_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_MEMORY if _has_room() else None) as folder:
        yield Path(folder)


def _has_room() -> bool:
    return os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ENOUGH_BYTES
