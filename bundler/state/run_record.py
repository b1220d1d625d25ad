"""Makes the run record of a build: which code, whether guarded, how each state came about."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bundler import listener
from bundler.errors import ToolFailed
from bundler.git import CodeIdentity, code_identity
from bundler.state.manifest import Build, DirectoryRefresh, RunRecord, Tool
from bundler.version import __version__

# The prefix of the origin of a state from versioned storage; a version may follow.
STORE = "store:"
TOOL = Tool("state-bundler", __version__)


def make(
    identity: CodeIdentity | None,
    refresh: Sequence[DirectoryRefresh],
    *,
    guarded: bool,
    environment: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> RunRecord:
    """The record of this run. Under SOURCE_DATE_EPOCH it has no times, so that it is reproducible.

    identity: of the code that is built; None if there is no repository.
    """
    build = Build(guarded=guarded)
    if identity is not None:
        dirty, remote = identity.dirty, identity.remote
        build = Build(identity.commit, identity.tree, dirty, remote, guarded)
    if environ.get("SOURCE_DATE_EPOCH"):
        refresh = [_without_times(directory) for directory in refresh]
    return RunRecord(build=build, refresh=tuple(refresh), tool=TOOL, environment=environment)


def code_of(root: Path, *, required: bool) -> CodeIdentity | None:
    """The code that a project is at; None if git does not know it and it is not required."""
    try:
        return code_identity(root)
    except ToolFailed as error:
        if required:
            raise
        listener.of_process.note(f"The run record will not name the commit: {error.what}")
        return None


def _without_times(directory: DirectoryRefresh) -> DirectoryRefresh:
    keys = tuple(
        msgspec.structs.replace(key, fetched=None, confirmed=None) for key in directory.keys
    )
    return msgspec.structs.replace(directory, keys=keys)


def version_in(origin: str) -> str | None:
    """The store version that a state came from, if its origin names one."""
    prefix, _, version = origin.partition(STORE)
    try:
        return version if not prefix and str(uuid.UUID(version)) == version else None
    except ValueError:
        return None
