"""Transfers a state between a program and a store, for `bundler.dagster_storage` and
`bundler.component_storage`.

Both programs know a state as a path called ``state``, in a temporary directory, next to which a
component may have left other files.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler.errors import UsageError
from bundler.state.manifest import state_of
from bundler.state.statedir import sanitize_key
from bundler.state.tree import scan
from bundler.store import content, local
from bundler.store.embedded import target_of
from bundler.store.pointer import Author
from bundler.store.pushing import NewState
from bundler.store.store import Store

_STATE = "state"


def author() -> Author:
    return Author(local.user())


def upload(store: Store, key: str, version: str, path: Path) -> None:
    """Makes the state at a path the current version of its key, under this UUID."""
    with _key_directory(path) as directory:
        state = state_of(key, sanitize_key(key), scan(directory))
        store.push([NewState(state, directory, version=version)], author())


def download(store: Store, key: str, version: str, path: Path) -> None:
    """Writes a version to a path that does not exist; the siblings of ``state`` go next to it.

    Raises `UsageError` if the key has no such version.
    """
    found = store.version(version)
    if found.key != key:
        raise UsageError(f"Version {version} belongs to {found.key}, not to {key}.", key=key)
    content.download(
        store.objects,
        ((piece, target_of(path, file.path)) for file, piece in content.pieces(found)),
    )


@contextmanager
def _key_directory(path: Path) -> Iterator[Path]:
    """The key directory that contains a state; None for a state that is somewhere else."""
    if path.name == _STATE and _is_private(path.parent):
        yield path.parent
        return
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as scratch:
        target = Path(scratch) / _STATE
        if path.is_dir():
            shutil.copytree(path, target, symlinks=True)
        else:
            shutil.copyfile(path, target)
        yield Path(scratch)


def _is_private(directory: Path) -> bool:
    """Whether ``tempfile`` created the directory, which then contains nothing but a state."""
    status = directory.stat()
    mine = stat.S_IMODE(status.st_mode) == stat.S_IRWXU and status.st_uid == os.getuid()
    return mine and directory.resolve().parent == Path(tempfile.gettempdir()).resolve()
