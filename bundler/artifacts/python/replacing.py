"""Replaces an older file or folder with a new one: completely, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler.artifacts.names import is_pex_folder
from bundler.errors import UsageError
from bundler.system.atomic import (
    exchange,
    io_errors,
    keep_owner,
    sync_directory,
    sync_tree,
    temporary_folder,
)
from bundler.system.walking import walk


def refuse_foreign(destination: Path) -> None:
    """Raises `UsageError` for a directory with files that is not a PEX: they would be lost."""
    with io_errors(destination):
        is_folder = destination.is_dir() and not destination.is_symlink()
        if is_folder and not is_pex_folder(destination) and any(destination.iterdir()):
            raise UsageError(
                f"{destination} is a directory that contains other files.",
                hint="Choose another file with -o.",
            )


@contextmanager
def named_at_end(destination: Path) -> Iterator[Path]:
    """A temporary path that gets its final name if the block succeeds, and disappears otherwise."""
    with temporary_folder(destination) as temporary:
        made = temporary / destination.name
        yield made
        publish(made, destination)


def take_mode(made: Path, source: Path) -> None:
    """Gives a new file or folder the mode of another one, and its owner the access it needs."""
    needed = stat.S_IRWXU if made.is_dir() else stat.S_IRUSR
    made.chmod(stat.S_IMODE(source.stat().st_mode) | needed)


def publish(made: Path, destination: Path) -> None:
    """Gives a finished file or folder its name, and the owner of the one that it replaces.

    made: in a `temporary_folder` of the destination; the old one is removed together with that.
    Raises as `refuse_foreign` does.
    """
    refuse_foreign(destination)
    with io_errors(destination):
        if os.path.lexists(destination):
            before = destination.stat(follow_symlinks=False)
            keep_owner(made, before)
            for directory, folders, names in walk(made):
                for name in (*folders, *names):
                    keep_owner(Path(directory, name), before)
        sync_tree(made)
        if made.is_dir() or destination.is_dir():
            exchange(made, destination)
        else:
            os.replace(made, destination)
            sync_directory(destination.parent)
