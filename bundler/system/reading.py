"""Reading files and directories that may not be readable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bundler.errors import unreadable


@contextmanager
def reading(path: object) -> Iterator[None]:
    """Turns an `OSError` into an `InputOutputError` that says that this cannot be read."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error
