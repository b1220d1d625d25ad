"""Reports that a state is still being written, and how much of it, while the user waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bundler.listener import KeyProgress, Listener

_EVERY_SECONDS = 0.5
# Until the first note if nothing else is shown; the intervals grow.
_PATIENCE_SECONDS = 8.0
# dbt's folders have hundreds of files; counting more would take too long.
_MOST_FILES = 2000


@asynccontextmanager
async def watched(
    key: str, attempt: int, directory: Path, listener: Listener
) -> AsyncIterator[None]:
    """Until the block ends, reports the bytes in the key directory to a listener that follows
    progress. Any other listener gets a note from time to time."""
    telling = _tell(key, attempt, directory, listener) if listener.follows else _note(key, listener)
    task = asyncio.ensure_future(telling)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _tell(key: str, attempt: int, directory: Path, listener: Listener) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        passed = time.monotonic() - began
        listener.key(KeyProgress(key, "fetching", attempt, size_below(directory), passed))


async def _note(key: str, listener: Listener) -> None:
    passed = _PATIENCE_SECONDS
    await asyncio.sleep(passed)
    while True:
        listener.note(f"{key}: still fetching after {passed:g} s.")
        await asyncio.sleep(passed)
        passed *= 2


def size_below(directory: Path) -> int:
    """The bytes of the files below a directory that is being written to, as far as readable."""
    total = seen = 0
    for parent, _, names in os.walk(directory):
        counted = names[: _MOST_FILES - seen]
        for name in counted:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
        seen += len(counted)
        if seen == _MOST_FILES:
            break
    return total
