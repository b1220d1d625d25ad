"""A new file or folder takes the place of an older one: whole, with its mode, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bundler.system.atomic import exchange, io_errors, sync_directory, sync_tree

_BUFFER_BYTES = 1024 * 1024


@contextmanager
def file(source: Path, destination: Path) -> Iterator[BinaryIO]:
    """A stream beside the destination that takes its place at the end.

    The mode is the destination's, or that of the source where there is none. Raises
    `InputOutputError`; the destination is then what it was.
    """
    target = destination.resolve()
    with io_errors(destination):
        mode = (target if target.exists() else source).stat().st_mode & 0o777
        descriptor, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=".new", dir=target.parent
        )
        beside = Path(name)
        try:
            with open(descriptor, "w+b", buffering=_BUFFER_BYTES) as stream:
                yield stream
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(beside, target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_directory(target.parent)


@contextmanager
def folder(source: Path, destination: Path) -> Iterator[Path]:
    """An empty folder beside the destination that takes its place at the end."""
    target = destination.resolve()
    with io_errors(destination):
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent))
        try:
            yield beside
            beside.chmod(source.stat().st_mode & 0o777)
            sync_tree(beside)
            exchange(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def publish(made: Path, destination: Path) -> None:
    """Gives a finished file or folder its name. What had the name before goes, whole."""
    with io_errors(destination):
        if made.is_dir() and destination.is_dir() and not destination.is_symlink():
            exchange(made, destination)
            return
        if destination.is_dir() and not destination.is_symlink():
            os.replace(destination, made.with_name(f"{made.name}.replaced"))
        elif made.is_dir() and os.path.lexists(destination):
            destination.unlink()
        os.replace(made, destination)
        sync_directory(destination.parent)
