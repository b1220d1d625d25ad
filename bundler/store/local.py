"""A push's data about this machine: published states, and who pushes them."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bundler.errors import ConfigurationError, ToolFailed
from bundler.git import code_identity
from bundler.state.directory import find_state_directories
from bundler.state.statedir import StateDir
from bundler.store.pointer import Author
from bundler.store.pushing import NewState

# Who started a CI job, by the names of CI systems' variables.
_CI_USERS = (
    "GITHUB_ACTOR",
    "GITLAB_USER_LOGIN",
    "BUILDKITE_BUILD_CREATOR",
    "CIRCLE_USERNAME",
    "BUILD_REQUESTEDFOR",
)
# The run that the shards of a refresh share.
_CI_RUNS = ("GITHUB_RUN_ID", "CI_PIPELINE_ID", "BUILDKITE_BUILD_ID", "CIRCLE_WORKFLOW_ID")


def published(root: Path, directories: Iterable[Path] | None = None) -> list[NewState]:
    """The states in these state directories, or in all in or below a folder.

    Raises `ConfigurationError` if there is none, `VerificationFailed` for a manifest that is
    malformed.
    """
    if directories is None:
        directories = find_state_directories(root)
    found = [new for path in directories for new in _of_directory(path)]
    if not found:
        raise ConfigurationError(
            f"{root} contains no published state.", hint="Run: state-bundler refresh"
        )
    return found


def _of_directory(path: Path) -> Iterator[NewState]:
    there = StateDir(path, path.name).read()
    if there is None:
        return
    known = there.record.refresh[0] if there.record and there.record.refresh else None
    refreshes = {refresh.key: refresh for refresh in (known.keys if known else ())}
    for state in there.manifest.states:
        yield NewState(
            state,
            path / state.path,
            place=known.path if known else path.name,
            refresh=refreshes.get(state.key),
        )


def select(states: Sequence[NewState], keys: Sequence[str]) -> list[NewState]:
    """The states of these keys, or all if none is named. Raises `ConfigurationError` for an
    unknown key."""
    known = {new.state.key for new in states}
    for key in keys:
        if key not in known:
            raise ConfigurationError(
                f"No published state has the key {key!r}.",
                hint=f"Known: {', '.join(sorted(known))}.",
                key=key,
            )
    return [new for new in states if not keys or new.state.key in keys]


def author(root: Path, note: str = "", environ: Mapping[str, str] = os.environ) -> Author:
    """The user, and the commit that is checked out, if known."""
    try:
        identity = code_identity(root)
    except ToolFailed:
        identity = None
    return Author(user(environ), identity.commit if identity else None, note)


def user(environ: Mapping[str, str] = os.environ) -> str:
    """Who started this CI job, or the user on this machine."""
    named = next((environ[name] for name in _CI_USERS if environ.get(name)), None)
    if named:
        return named
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return f"{os.getuid()}@{socket.gethostname()}"


def run_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """The ID that all jobs of this CI run share; None outside of CI."""
    return next((environ[name] for name in _CI_RUNS if environ.get(name)), None)
